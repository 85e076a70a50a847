"""The links between the pages of the documentation."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "deployments/*.md", "cassettes/*.md", "videogen/emulator/*.md")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"
)
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def anchor(heading: str) -> str:
    """Return the anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


def leads_somewhere(page: Path, link: str) -> bool:
    """Return whether the file and the heading that a relative link names exist."""
    name, _, heading = link.partition("#")
    target = page.parent / name if name else page
    if not target.exists():
        return False
    return not heading or heading in map(anchor, HEADING.findall(target.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    """Links to other sites are not followed."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    broken = [
        link for link in links if not link.startswith(("http://", "https://")) and not leads_somewhere(page, link)
    ]
    assert broken == []


def test_the_readme_is_short() -> None:
    """Reference material belongs to the pages in docs/."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 160
