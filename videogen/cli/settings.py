"""Show the settings that apply, and where they come from."""

import json

from videogen.cli.console import make_console, print_line
from videogen.settings import find_effective_settings, read_settings
from videogen.text import escape_json

# -- settings ---------------------------------------------------------------------------------------------------------


def show_settings(*, as_json: bool) -> None:
    """Print the effective settings and the source of each."""
    found = find_effective_settings(read_settings())
    if as_json:
        shown = {each.variable: {"value": each.value, "from": each.origin} for each in found}
        print(escape_json(json.dumps(shown, indent=2)))
        return
    console = make_console(stderr=False)
    for each in found:
        print_line(
            console, f"{each.variable:<{max(len(one.variable) for one in found)}}  {each.value or '-'}  ({each.origin})"
        )
