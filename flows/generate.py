"""`python -m flows.generate JOB` runs a job file.

Until version 0.3.0, the deployments and flows that were written for earlier versions also find the flow here.
"""

import sys

if __name__ == "__main__":
    from videogen.__main__ import main

    sys.exit(main(["run", *sys.argv[1:]]))

from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging.loggers import flow_run_logger

from videogen.flows import generate as home
from videogen.flows.generate import JobFailedError

__all__ = ["JobFailedError", "generate"]


def warn_of_old_name(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001
    """Tell in the log of a flow run that it was begun under the old name."""
    flow_run_logger(flow_run, flow).warning(
        "The flow `generate` of `flows.generate` is now `videogen` of `videogen.flows.generate`. The old name works "
        "until version 0.3.0. Run `deployments/set-up` once, and then the deployments videogen/generate and "
        "videogen/retry-failed instead of generate/generate and generate/retry-failed."
    )


generate = home.generate.with_options(name="generate", on_running=[warn_of_old_name])
