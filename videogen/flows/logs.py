"""Bring the log of videogen into the logs of a flow run."""

import logging

from prefect.settings import PREFECT_LOGGING_EXTRA_LOGGERS, PREFECT_LOGGING_LEVEL


def apply_log_level() -> None:
    """Give the loggers of videogen that Prefect is to collect the level of Prefect's own loggers.

    Prefect adds its handler to extra loggers but leaves their level, which is then that of the root logger: WARNING.
    """
    for name in PREFECT_LOGGING_EXTRA_LOGGERS.value() or ():
        logger = logging.getLogger(name)
        if name.partition(".")[0] == "videogen" and logger.level == logging.NOTSET:
            logger.setLevel(PREFECT_LOGGING_LEVEL.value())
