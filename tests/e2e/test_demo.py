"""`make demo`'s program: a page with real photos, and no download the second time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Nothing listens there: whoever tries to download fails.
NOWHERE = {"PIP_INDEX_URL": "http://127.0.0.1:9", "npm_config_registry": "http://127.0.0.1:9"}


def test_the_page_is_made_and_the_second_run_downloads_nothing(
    tmp_path: Path, model_cache_dir: Path
) -> None:
    for more in ({}, NOWHERE):
        done = subprocess.run(
            [sys.executable, ROOT / "examples" / "demo.py", tmp_path / "demo"],
            env={
                **os.environ,
                "RETINUE_CACHE": str(model_cache_dir),
                "RETINUE_HOME": str(tmp_path / "home"),
                **more,
            },
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
        assert "Next:" in done.stdout
        page = (tmp_path / "demo" / "index.html").read_text("utf-8")
        pictures = list((tmp_path / "demo" / "pictures").glob("*.jpg"))
        assert len(pictures) >= 10
        assert all(f'src="pictures/{picture.name}"' in page for picture in pictures)
        assert "milliseconds: decode" in page
        assert "<b>cat</b>: chelsea.png" in page
