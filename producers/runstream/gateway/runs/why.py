"""Why a run waits, as the scheduler that decides about it answers; without an answer, the reason for that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import msgspec
import orjson

from runstream.domain.run import RunState
from runstream.domain.why import Explanation, WaitReason, ended
from runstream.jetstream.messaging import NoAnswer
from runstream.log.port import Log
from runstream.log.runs import find_run, locate_run


class Asker(Protocol):
    """A way to ask other components (`runstream.jetstream.messaging.Questions`)."""

    async def ask(self, subject: str, question: bytes, seconds: float) -> bytes | NoAnswer:
        """Return the answer, or why there is none within `seconds`."""


ANSWER_SECONDS = 3.0
"""Maximum wait for the scheduler's answer, in seconds; it first catches up with the run in the log."""
_ANSWER = msgspec.json.Decoder(Explanation | None)


@dataclass(frozen=True, slots=True)
class Explainer:
    """The source of explanations, which asks the schedulers."""

    log: Log
    questions: Asker

    async def why(self, run_id: str) -> Explanation:
        """Return why the run waits now. Raises NotExistError, BadRequestError for an invalid id."""
        address = await locate_run(self.log, run_id)
        found = await find_run(self.log, address)
        if found.run.finished:
            return ended(found.run)
        question = orjson.dumps({"run": run_id, "at_least": found.head.sequence})
        subject = self.log.subjects.questions(address.partition)
        answer = await self.questions.ask(subject, question, ANSWER_SECONDS)
        if isinstance(answer, NoAnswer):
            return _unanswered(found.run, address.partition, answer)
        return _ANSWER.decode(answer) or _unknown(found.run)


def _unanswered(run: RunState, partition: int, why: NoAnswer) -> Explanation:
    details: dict[str, object] = {"partition": partition}
    if why is NoAnswer.NO_RESPONDERS:
        message = f"no scheduler works on partition {partition}: its runs do not advance"
        return Explanation(run.phase, run.result, [WaitReason("noScheduler", message, (), details)])
    message = (
        f"the scheduler of partition {partition} did not answer within {ANSWER_SECONDS:g} s: it is busy or cut off"
    )
    return Explanation(run.phase, run.result, [WaitReason("noAnswer", message, (), details)])


def _unknown(run: RunState) -> Explanation:
    message = "a commit of this run could not be read, so it and all later ones are parked: see `runstream parked list`"
    return Explanation(run.phase, run.result, [WaitReason("parked", message, (), {})])
