"""The last lines of the log, as the console shows them."""

from __future__ import annotations

import logging

from mlx_manager.observability.log_tail import LogTail


async def test_lines_are_kept_without_secrets_and_without_the_account_of_requests() -> None:
    logger = logging.getLogger("mlx_manager.test_log_tail")
    async with LogTail().listening() as tail:
        logger.warning("the key %s was refused", "sk-abcdefghijklmnopqrstuv")
        try:
            raise ValueError("no such thing")
        except ValueError:
            logger.exception("it broke")
        logging.getLogger("mlx_manager.requests").warning("{}")
    logger.warning("nobody listens any more")
    assert [(line.level, line.words) for line in tail.lines] == [
        (logging.WARNING, "the key [hidden] was refused"),
        (logging.ERROR, "it broke: ValueError: no such thing"),
    ]
    assert tail.num_seen == 2
