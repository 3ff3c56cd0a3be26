"""The one error tree of Retinue.

Every class carries a stable ``code`` (for programs), an HTTP status, a gRPC status and a CLI exit
code. Messages say what was wrong, with what, and what to do::

    RetinueError                    internal                500  INTERNAL            70
    ├── InputError                  invalid_input           400  INVALID_ARGUMENT    65
    │   ├── EmptyInput              empty_input             400  INVALID_ARGUMENT    65
    │   ├── UnsupportedMedia        unsupported_media       415  INVALID_ARGUMENT    65
    │   ├── CorruptMedia            corrupt_media           400  INVALID_ARGUMENT    65
    │   ├── TooManyBytes            too_many_bytes          413  RESOURCE_EXHAUSTED  65
    │   ├── TooManyPixels           too_many_pixels         413  RESOURCE_EXHAUSTED  65
    │   ├── TooManyFrames           too_many_frames         413  RESOURCE_EXHAUSTED  65
    │   ├── RequestTimeout          request_timeout         408  DEADLINE_EXCEEDED   65
    │   ├── InvalidTensor           invalid_tensor          400  INVALID_ARGUMENT    65
    │   ├── FilterInvalid           filter_invalid          422  INVALID_ARGUMENT    65
    │   └── InvalidRequest          invalid_request         400  INVALID_ARGUMENT    64
    ├── NotFound                    not_found               404  NOT_FOUND           66
    │   ├── ModelNotFound           model_not_found         404  NOT_FOUND           66
    │   └── InputNotFound           input_not_found         404  NOT_FOUND           66
    ├── Unavailable                 unavailable             503  UNAVAILABLE         75
    │   ├── QueueFull               queue_full              503  RESOURCE_EXHAUSTED  75
    │   ├── DeadlineExceeded        deadline_exceeded       504  DEADLINE_EXCEEDED   75
    │   ├── ShuttingDown            shutting_down           503  UNAVAILABLE         75
    │   ├── Superseded              superseded              409  ABORTED             75
    │   └── ClientClosed            client_closed           499  CANCELLED           75
    ├── Conflict                    conflict                409  ABORTED             75
    ├── ModelError                  model_error             500  INTERNAL            70
    │   ├── ModelCorrupt            model_corrupt           500  DATA_LOSS           70
    │   ├── ModelRunFailed          model_run_failed        500  INTERNAL            70
    │   ├── InstanceCrashed         instance_crashed        500  INTERNAL            70
    │   ├── UnsupportedModel        unsupported_model       422  UNIMPLEMENTED       65
    │   ├── GateRefused             gate_refused            422  FAILED_PRECONDITION 65
    │   └── UnsafePickle            unsafe_pickle           422  INVALID_ARGUMENT    65
    ├── FetchError                  fetch_failed            502  UNAVAILABLE         69
    │   └── ChecksumMismatch        checksum_mismatch       502  DATA_LOSS           69
    ├── StorageError                storage_error           500  INTERNAL            74
    │   ├── DiskFull                disk_full               507  RESOURCE_EXHAUSTED  74
    │   ├── NotWritable             not_writable            500  PERMISSION_DENIED   73
    │   └── IndexCorrupt            index_corrupt           500  DATA_LOSS           74
    ├── ConfigError                 invalid_config          500  FAILED_PRECONDITION 78
    │   ├── MissingExtra            missing_extra           500  FAILED_PRECONDITION 69
    │   ├── PluginError             plugin_error            500  FAILED_PRECONDITION 78
    │   └── AddressInUse            address_in_use          500  UNAVAILABLE         71
    └── AccessError                 forbidden               403  PERMISSION_DENIED   77
        └── Unauthenticated         unauthenticated         401  UNAUTHENTICATED     77

Exit codes are those of BSD ``sysexits.h``. Nothing broader than these classes is caught on
purpose.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar


class RetinueError(Exception):
    """Root of the tree: something inside Retinue failed."""

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    grpc_status: ClassVar[str] = "INTERNAL"
    exit_code: ClassVar[int] = 70

    @property
    def message(self) -> str:
        """What was wrong, with what, and what to do."""
        return str(self.args[0]) if self.args else self.code


class InputError(RetinueError):
    """The caller's input is wrong; sending it again will not help."""

    code = "invalid_input"
    http_status = 400
    grpc_status = "INVALID_ARGUMENT"
    exit_code = 65


class EmptyInput(InputError):
    """Nothing was sent: zero bytes."""

    code = "empty_input"


class UnsupportedMedia(InputError):
    """The content is of a type that is not read here."""

    code = "unsupported_media"
    http_status = 415


class CorruptMedia(InputError):
    """The type is known but the content is truncated or damaged."""

    code = "corrupt_media"


class TooManyBytes(InputError):
    """More bytes than the limit."""

    code = "too_many_bytes"
    http_status = 413
    grpc_status = "RESOURCE_EXHAUSTED"


class TooManyPixels(InputError):
    """The header announces more pixels than the limit."""

    code = "too_many_pixels"
    http_status = 413
    grpc_status = "RESOURCE_EXHAUSTED"


class TooManyFrames(InputError):
    """The file announces more frames than the limit."""

    code = "too_many_frames"
    http_status = 413
    grpc_status = "RESOURCE_EXHAUSTED"


class RequestTimeout(InputError):
    """The request did not arrive in the time that it is given."""

    code = "request_timeout"
    http_status = 408
    grpc_status = "DEADLINE_EXCEEDED"


class InvalidTensor(InputError):
    """A tensor's name, shape, dtype or byte length is wrong."""

    code = "invalid_tensor"


class FilterInvalid(InputError):
    """An AR filter, or an asset of it, is damaged, too large or not as its format asks for."""

    code = "filter_invalid"
    http_status = 422


class InvalidRequest(InputError):
    """A parameter is missing, unknown or out of range."""

    code = "invalid_request"
    exit_code = 64


class NotFound(RetinueError):
    """The thing that was named does not exist."""

    code = "not_found"
    http_status = 404
    grpc_status = "NOT_FOUND"
    exit_code = 66


class ModelNotFound(NotFound):
    """No such model, or no such version of it."""

    code = "model_not_found"


class InputNotFound(NotFound):
    """No such input file or folder."""

    code = "input_not_found"


class Unavailable(RetinueError):
    """Not now: the same request may succeed later."""

    code = "unavailable"
    http_status = 503
    grpc_status = "UNAVAILABLE"
    exit_code = 75


class QueueFull(Unavailable):
    """The bounded queue has no place left."""

    code = "queue_full"
    grpc_status = "RESOURCE_EXHAUSTED"


class DeadlineExceeded(Unavailable):
    """The item's deadline passed, or it could not have been met."""

    code = "deadline_exceeded"
    http_status = 504
    grpc_status = "DEADLINE_EXCEEDED"


class ShuttingDown(Unavailable):
    """The process is draining and accepts no new work."""

    code = "shutting_down"


class Superseded(Unavailable):
    """A newer frame of the same stream took this one's place in the queue."""

    code = "superseded"
    http_status = 409
    grpc_status = "ABORTED"


class ClientClosed(Unavailable):
    """The caller went away before its answer was ready."""

    code = "client_closed"
    http_status = 499
    grpc_status = "CANCELLED"


class Conflict(RetinueError):
    """Someone else changed meanwhile what was to be changed; look at it and decide again."""

    code = "conflict"
    http_status = 409
    grpc_status = "ABORTED"
    exit_code = 75


class ModelError(RetinueError):
    """A model cannot be loaded or run."""

    code = "model_error"


class ModelCorrupt(ModelError):
    """A model file does not match its digest, or cannot be parsed."""

    code = "model_corrupt"
    grpc_status = "DATA_LOSS"


class ModelRunFailed(ModelError):
    """The runtime failed on this item."""

    code = "model_run_failed"


class InstanceCrashed(ModelError):
    """The process or engine that executes the model died; a new one is started."""

    code = "instance_crashed"


class UnsupportedModel(ModelError):
    """The model uses an operator, layout or type that is not supported."""

    code = "unsupported_model"
    http_status = 422
    grpc_status = "UNIMPLEMENTED"
    exit_code = 65


class GateRefused(ModelError):
    """A version is not good enough by its own measurements; nothing was changed."""

    code = "gate_refused"
    http_status = 422
    grpc_status = "FAILED_PRECONDITION"
    exit_code = 65


class UnsafePickle(ModelError):
    """A pickle asks for something other than plain tensors; it was not loaded."""

    code = "unsafe_pickle"
    http_status = 422
    grpc_status = "INVALID_ARGUMENT"
    exit_code = 65


class FetchError(RetinueError):
    """A model or file could not be fetched."""

    code = "fetch_failed"
    http_status = 502
    grpc_status = "UNAVAILABLE"
    exit_code = 69


class ChecksumMismatch(FetchError):
    """What was fetched is not what the card names."""

    code = "checksum_mismatch"
    grpc_status = "DATA_LOSS"


class StorageError(RetinueError):
    """Reading or writing a disk, database or object store failed."""

    code = "storage_error"
    exit_code = 74


class DiskFull(StorageError):
    """No space is left where something had to be written."""

    code = "disk_full"
    http_status = 507
    grpc_status = "RESOURCE_EXHAUSTED"


class NotWritable(StorageError):
    """A folder or file may not be written."""

    code = "not_writable"
    grpc_status = "PERMISSION_DENIED"
    exit_code = 73


class IndexCorrupt(StorageError):
    """An index file is damaged or of another version; it can be built anew from its vectors."""

    code = "index_corrupt"
    grpc_status = "DATA_LOSS"


class ConfigError(RetinueError):
    """A setting is missing or wrong."""

    code = "invalid_config"
    grpc_status = "FAILED_PRECONDITION"
    exit_code = 78


class MissingExtra(ConfigError):
    """A part needs an optional dependency; the message names the extra to install."""

    code = "missing_extra"
    exit_code = 69


class PluginError(ConfigError):
    """A plug-in is unknown, or does not have the shape that its kind asks for."""

    code = "plugin_error"


class AddressInUse(ConfigError):
    """The address that the server was to listen on is taken."""

    code = "address_in_use"
    grpc_status = "UNAVAILABLE"
    exit_code = 71


class AccessError(RetinueError):
    """The caller may not do this."""

    code = "forbidden"
    http_status = 403
    grpc_status = "PERMISSION_DENIED"
    exit_code = 77


class Unauthenticated(AccessError):
    """No API key, or one that is not known."""

    code = "unauthenticated"
    http_status = 401
    grpc_status = "UNAUTHENTICATED"


@contextmanager
def storage_errors(path: Path | str, doing: str) -> Iterator[None]:
    """Turn an ``OSError`` raised in the block into the matching class of `StorageError`.

    Args:
        path: The file or folder that is being read or written.
        doing: What is being done with it, as in "writing the model".

    Raises:
        DiskFull: on ENOSPC or EDQUOT.
        NotWritable: on EACCES, EPERM or EROFS, or where a folder's place is taken by a file.
        StorageError: on any other ``OSError``.
    """
    try:
        yield
    except OSError as error:
        where = f"{doing}: {path}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"{where}: no space is left on the device; free some and try again"
            raise DiskFull(message) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            message = f"{where}: {error.strerror}; make it writable or choose another place"
            raise NotWritable(message) from error
        raise StorageError(f"{where}: {error.strerror or error}") from error
