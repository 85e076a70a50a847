"""Write the film of a job anew: the timelines for editing programs, and the rough cut."""

from pathlib import Path

from videogen.cli.console import make_console, print_line
from videogen.execution.options import RunOptions, validate_music
from videogen.job.model import Job
from videogen.reports.media_root import MediaRoot
from videogen.reports.rough_cut import ROUGH_CUT_NAME, write_rough_cut
from videogen.reports.timeline import TIMELINE_NAMES
from videogen.review import Review
from videogen.text import list_first


def export_film(job: Job, options: RunOptions, *, media_root: MediaRoot, rough_cut: bool, music: Path | None) -> int:
    """Write the files of the last run's film, with the takes that are chosen now, and print their names."""
    if music:
        validate_music(music)
    review = Review.open(options.resolve_settings(), job.id)
    batch = review.read_result()
    for warning in review.find_warnings(job):
        print_line(make_console(stderr=True), f"warning: {warning}")
    if missing := review.find_missing_files(batch):
        print_line(
            make_console(stderr=True),
            f"warning: {list_first(missing)}: not in {review.store.address} any more. Run the job again: `videogen "
            "plan` shows what that costs, because a provider keeps outputs for a short time only",
        )
    review.write_timelines(batch, media_root=media_root)
    if rough_cut or music:
        print_line(make_console(stderr=True), f"cutting {ROUGH_CUT_NAME} …")
        write_rough_cut(
            batch, review.store, prompts={clip.scene_id: clip.prompt or "" for clip in batch.clips}, music=music
        )
    review.write_page(batch)
    console = make_console(stderr=False)
    for name in (*TIMELINE_NAMES, *([ROUGH_CUT_NAME] if rough_cut or music else [])):
        print_line(console, f"{review.store.address}/{name}")
    return 0
