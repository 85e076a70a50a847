"""Print a shot list as a job file."""

import sys
from pathlib import Path

from videogen.cli.exit_codes import OK
from videogen.job.shot_list import read_shot_list, write_job
from videogen.text import escape_unprintable


def print_job_of_shots(path: Path, *, model: str | None) -> int:
    """Print the job file on standard output, and on standard error which columns are not used. Return the exit code."""
    shots = read_shot_list(path)
    sys.stdout.write(write_job(shots, model=model, source=path.name))
    scenes = f"{len(shots.scenes)} scene{'' if len(shots.scenes) == 1 else 's'}"
    unused = f"; no field of a scene, and not used: {', '.join(shots.unused)}" if shots.unused else ""
    print(escape_unprintable(f"{path.name}: {scenes}{unused}"), file=sys.stderr)
    return OK
