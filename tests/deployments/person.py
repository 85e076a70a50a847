"""A person who uses Prefect's pages in a browser."""

import base64

from playwright.sync_api import Locator, Page

from tests.deployments.stage import PASSWORD, Stage

PATIENCE_MS = 120_000


class Person:
    """A person with a browser, who knows the password of Prefect's server."""

    def __init__(self, page: Page, stage: Stage) -> None:
        self.page, self._address = page, f"http://127.0.0.1:{stage.port}"
        page.set_default_timeout(PATIENCE_MS)
        secret = base64.b64encode(PASSWORD.encode()).decode()
        page.add_init_script(f"localStorage.setItem('prefect-password', '{secret}')")

    def open_form(self, flow_run: str) -> Locator:
        """Return the form on the page of a flow run."""
        self._choose(flow_run, "Suspended", "Resume")
        form = self.page.get_by_role("dialog")
        form.get_by_text("Decision").wait_for()
        return form

    def cancel(self, flow_run: str) -> None:
        """Cancel a flow run on its page."""
        self._choose(flow_run, "Running", "Cancel")
        self.page.get_by_role("alertdialog").get_by_role("button", name="Cancel Flow Run").click()

    def answer(self, form: Locator, decision: str, *, amount: str | None = None, note: str | None = None) -> None:
        form.get_by_role("button", name="Select").click()
        self.page.get_by_role("option", name=decision).click()
        if amount is not None:
            form.locator("input[type=number], input[inputmode=decimal], input").first.fill(amount)
        if note is not None:
            form.locator("textarea").first.fill(note)
        form.get_by_role("button", name="Resume").click()
        self.page.get_by_text("Flow run resumed").wait_for()

    def _choose(self, flow_run: str, state: str, action: str) -> None:
        """Choose an action in the menu of a flow run's page, once the page shows this state."""
        self.page.goto(f"{self._address}/v2/runs/flow-run/{flow_run}")
        self.page.get_by_text(state, exact=True).first.wait_for()
        self.page.locator("main button[aria-haspopup=menu], button[aria-haspopup=menu]").first.click()
        self.page.get_by_role("menuitem", name=action).click()
