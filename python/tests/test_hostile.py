"""Hostile calls raise errors; none of them ends the process."""

import json
import subprocess
import sys
from pathlib import Path


def test_hostile_calls_raise_errors(models: Path, tmp_path: Path) -> None:
    script = Path(__file__).with_name("hostile.py")
    command = [sys.executable, str(script), str(models), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    calls: list[tuple[str, str]] = []
    for line in map(json.loads, done.stdout.splitlines()):
        if "call" in line:
            calls.append((line["call"], "the process ended"))
        else:
            calls[-1] = (calls[-1][0], line["outcome"])
    wrong = [f"{name}: {outcome}" for name, outcome in calls if outcome != "fine"]
    assert not wrong, "\n".join(wrong)
    assert done.returncode == 0, done.stderr
    assert "panicked" not in done.stderr, done.stderr
    assert len(calls) >= 300
    print(f"{len(calls)} hostile calls raised errors")
