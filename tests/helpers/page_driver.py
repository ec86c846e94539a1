# Copyright (c) addp_mm contributors. Apache-2.0.
"""Use the page of ``addp app`` in a headless Chromium: each tab once, with a screenshot of it."""

import shutil
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import sync_playwright

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
_SECONDS = 1000
_STROKES = 3


def find_browser() -> str | None:
    """Path of the system's browser."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class Visit:
    """A visitor of the page.

    Attributes:
        outside: Addresses of other servers that the page asked for.
        complaints: Errors in the browser's console.
    """

    def __init__(self, page, address: str) -> None:
        self.page = page
        self.outside, self.complaints = [], []
        own = (address, 'data:', 'blob:')
        page.on('request', lambda request: request.url.startswith(own) or self.outside.append(request.url))
        page.on('console', lambda message: message.type == 'error' and self.complaints.append(message.text))
        page.on('pageerror', lambda error: self.complaints.append(str(error)))
        page.set_default_timeout(120 * _SECONDS)  # of a busy machine
        page.goto(address)

    def click(self, name: str) -> None:
        self.page.get_by_role('button', name=name, exact=True).locator('visible=true').click()

    def open_tab(self, name: str) -> None:
        self.page.get_by_role('tab', name=name, exact=True).click()

    def wait_for(self, selector: str) -> None:
        self.page.locator(selector).locator('visible=true').last.wait_for()

    def upload(self, path: Path) -> None:
        with self.page.expect_file_chooser() as chooser:
            self.click('Upload an image')
        chooser.value.set_files(path)

    def message(self) -> str:
        """The text of the message in the corner, which is then closed."""
        toast = self.page.locator('.toast-body').first
        toast.wait_for()
        text = toast.inner_text()
        toast.locator('button').click()
        toast.wait_for(state='detached')
        return text

    def screenshot(self, path: Path) -> None:
        self.page.mouse.move(0, 0)
        self.page.evaluate('scrollTo(0, 0)')
        self.page.screenshot(path=path)


@contextmanager
def visit(address: str, browser: str):
    """Open the page in the browser."""
    with sync_playwright() as driver:
        # Chromium's own sandbox does not start in containers or as root
        chromium = driver.chromium.launch(executable_path=browser, args=['--no-sandbox'])
        try:
            yield Visit(chromium.new_page(viewport=dict(width=1180, height=760)), address)
        finally:
            chromium.close()


def generate(visitor: Visit, image: Path, label: str, guidance: float) -> bytes:
    """Generate images of a class with guidance; the bytes of the downloaded zip."""
    visitor.page.get_by_label('Class', exact=True).locator('visible=true').click()
    visitor.page.get_by_role('option', name=label, exact=True).click()
    visitor.page.get_by_label('number input for Guidance', exact=True).locator('visible=true').fill(str(guidance))
    visitor.click('Generate')
    visitor.page.locator('.grid-container img').nth(7).wait_for()
    visitor.screenshot(image)
    with visitor.page.expect_download() as download:
        visitor.page.get_by_text('Download all').locator('visible=true').click()
    return Path(download.value.path()).read_bytes()


def stop_generating(visitor: Visit) -> None:
    """Start to generate and stop it; the button can be used again when it has ended."""
    visitor.open_tab('Generate')
    number = visitor.page.get_by_label('number input for Images', exact=True).locator('visible=true')
    before = number.input_value()
    number.fill('16')  # long enough to be seen while it runs
    visitor.click('Generate')
    visitor.page.get_by_text('/20 steps').wait_for()
    visitor.click('Stop')
    visitor.page.get_by_text('/20 steps').wait_for(state='detached')
    number.fill(before)


def predict(visitor: Visit, title: str, image: Path, least: float | None = None) -> str:
    """Detect or segment; the text of the table. ``least`` is the least score."""
    visitor.open_tab(title)
    if least is not None:
        visitor.page.get_by_label('number input for Least score').locator('visible=true').fill(str(least))
    visitor.click(title)
    visitor.wait_for('table')
    visitor.screenshot(image)
    return visitor.page.locator('table').locator('visible=true').inner_text()


def watch_steps(visitor: Visit, step: int, image: Path) -> str:
    """Generate one image and go to a step; the sentence about it."""
    visitor.open_tab('Steps')
    visitor.click('Generate one image')
    visitor.page.get_by_text('tokens are known').wait_for()
    slider = visitor.page.get_by_label('number input for Step', exact=True)
    slider.fill(str(step))
    slider.press('Enter')
    text = visitor.page.get_by_text(f'After step {step}:')
    text.wait_for()
    visitor.screenshot(image)
    return text.inner_text()


def draw_and_inpaint(visitor: Visit, image: Path, samples: int = 5) -> None:
    """Draw a stroke through the middle of the image, and inpaint."""
    visitor.open_tab('Inpaint')
    canvas = visitor.page.locator('canvas').first
    canvas.wait_for()
    visitor.page.get_by_label('Brush').first.wait_for()
    visitor.page.wait_for_timeout(_SECONDS)  # the editor has no sign that it is ready
    box = canvas.bounding_box()
    x, y = box['x'] + box['width'] / 2, box['y'] + box['height'] / 2
    visitor.page.get_by_label('number input for Samples').fill(str(samples))
    result, toast = visitor.page.get_by_text(f'sample {samples}'), visitor.page.locator('.toast-body')
    for _ in range(_STROKES):
        draw_stroke(visitor.page.mouse, x, y)
        visitor.click('Inpaint')
        result.or_(toast).first.wait_for()
        if not toast.count():
            break
        visitor.message()  # the editor was not ready, so that nothing was drawn
    result.wait_for()
    visitor.screenshot(image)


def draw_stroke(mouse, x: float, y: float) -> None:
    """Draw a diagonal through (x, y)."""
    mouse.move(x - 60, y - 60)
    mouse.down()
    mouse.move(x + 60, y + 60, steps=8)
    mouse.up()
