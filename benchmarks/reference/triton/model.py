"""What real Triton's Python backend executes for every model of the reference repository.

Each input ``NAME`` comes out as ``NAME_out``; the model's parameters ``delay_s`` and ``fail``
make it slow or make it fail. Runs inside Triton only: ``triton_python_backend_utils`` is there.
"""

import json
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {key: one["string_value"] for key, one in config["parameters"].items()}
        self._inputs = [one["name"] for one in config["input"]]
        self._delay_s = float(parameters.get("delay_s", 0))
        self._fail = parameters.get("fail", "")

    def execute(self, requests):
        time.sleep(self._delay_s)
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        if self._fail:
            return pb_utils.InferenceResponse([], pb_utils.TritonError(self._fail))
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor(
                    f"{name}_out", pb_utils.get_input_tensor_by_name(request, name).as_numpy()
                )
                for name in self._inputs
            ]
        )
