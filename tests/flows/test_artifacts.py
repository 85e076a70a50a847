"""What the Prefect UI shows of a run, as text; how it looks there is in docs/follow-a-run.md."""

from tests.support.builders import clip_of, job_of, plan_of, result_of
from videogen.flows.artifacts import describe_verdict, make_clip_rows, render_verdict
from videogen.results.clip import Clip
from videogen.results.run_result import RunResult

GATEWAY = "http://films.example:8474/"


def batch_of(*clips: Clip) -> RunResult:
    """Return the result of the run in the examples."""
    return result_of(job_of({}), clips, run_id="4f1f0c6d2b7a", provider="local", total_generation_time=125.0)


def test_a_verdict_says_what_was_planned_what_came_and_what_to_do() -> None:
    """A person reads it first, and acts on it."""
    batch = batch_of(clip_of(0, cost="0.35"), clip_of(1, failure="moderation"))
    text = render_verdict(batch, plan_of(2), gateway=GATEWAY)
    assert "| cost | $0.70, at most $2.10 | $0.35 |" in text
    assert "| clips | 2 | 1 delivered, 1 failed |" in text
    assert "| time | | 2 min 5 s |" in text
    assert "- **s1** (moderation, 1 attempt): it said no" in text
    assert "moderation refuses the prompt or a picture: change it" in text
    assert "(http://films.example:8474/?run=4f1f0c6d2b7a)" in text


def test_the_message_of_a_state_says_what_happened_and_what_to_do() -> None:
    """In plain text, as the page of a flow run shows it. Where everything was delivered, nothing is to be done."""
    partial = describe_verdict(batch_of(clip_of(0), clip_of(1, failure="moderation"), clip_of(2, failure="timeout")))
    assert partial == (
        "1 of 3 clips delivered, 1 were enough. The model's moderation refuses the prompt or a picture: change it, or "
        "use another model. The model takes longer than its timeout: raise timeout_seconds. Run the job again: "
        "delivered clips are reused, failed clips are tried again."
    )
    assert describe_verdict(batch_of(clip_of(0))) == "all 1 clips delivered"


def test_the_message_of_a_state_stays_short() -> None:
    """It leaves further advice to the artifact that has all of it."""
    codes = ("billing", "moderation", "storage", "timeout")
    said = describe_verdict(batch_of(*(clip_of(number, failure=code) for number, code in enumerate(codes))))
    assert "top it up. The model's moderation" in said
    assert "free space" not in said
    assert "More is in the artifact film-verdict. Run the job again: " in said


def test_the_verdict_of_a_cancelled_run_says_how_to_continue() -> None:
    """It is called cancelled, not failed, and does not promise for free what was never made."""
    batch = batch_of(clip_of(0, cost="0.35"), clip_of(1, failure="interrupted"))
    text = render_verdict(batch, plan_of(2), is_cancelled=True)
    assert ": cancelled\n" in text
    assert "| cost | $0.70, at most $2.10 | $0.35 |" in text
    assert "- The run ended before these clips were done: the next run makes them.\n- Run the job again to" in text
    assert "what was delivered, or finished at the provider within an hour, is reused" in text


def test_a_verdict_says_its_warnings() -> None:
    """As a sentence of its own, in which no model's name becomes markup."""
    batch = batch_of(clip_of(0))
    warned = batch.verdict.model_copy(update={"warnings": ("my_model_: 1 clip was billed $0.70",)})
    text = render_verdict(batch.model_copy(update={"verdict": warned}), plan_of(1))
    assert "\n**Warning:** my\\_model\\_: 1 clip was billed $0.70.\n\n|" in text
    assert "Warning" not in render_verdict(batch, plan_of(1))


def test_a_row_leads_to_its_clip_where_there_is_a_gateway() -> None:
    """Prefect's page makes a link of it; a clip that failed has none."""
    rows = make_clip_rows(batch_of(clip_of(0), clip_of(1, failure="timeout")), GATEWAY)
    assert rows[0]["scene"] == "[s0](http://films.example:8474/runs/4f1f0c6d2b7a/clips/s0.mp4)"
    assert (rows[1]["scene"], rows[1]["status"]) == ("s1", "timeout")
    assert make_clip_rows(batch_of(clip_of(0)))[0]["scene"] == "s0"


def test_the_original_target_is_a_column_where_it_says_something() -> None:
    """The table has to fit the page."""
    assert "original" not in make_clip_rows(batch_of(clip_of(0)))[0]
    assert make_clip_rows(batch_of(clip_of(0), clip_of(1, original_target_duration=3.5)))[1]["original"] == 3.5


def test_the_artifacts_of_a_long_job_stay_readable() -> None:
    """200 rows of 5,000, those that failed first, in scene order; and as many failures."""
    clips = [clip_of(n, failure="timeout" if n % 1000 == 7 else None) for n in range(5000)]
    rows = make_clip_rows(batch_of(*clips))
    assert len(rows) == 200
    assert [row["scene"] for row in rows[:6]] == ["s7", "s1007", "s2007", "s3007", "s4007", "s0"]
    text = render_verdict(batch_of(*(clip_of(n, failure="timeout") for n in range(300))), plan_of(1))
    assert "… and 100 more" in text
    assert text.count("(timeout, 1 attempt)") == 200
