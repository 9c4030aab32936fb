"""The driver of the browser that tests of pages rest on."""

from pathlib import Path
from urllib.parse import quote

import pytest

from tests.browser import Browser, BrowserError
from tests.waiting import wait_until

PAGE = """<!doctype html><title>t</title><style>body{margin:0;height:3000px}</style><script>
seen = []
for (const kind of ["pointerdown", "pointermove", "pointerup", "keydown"])
  addEventListener(kind, e => seen.push([kind, e.key || [e.clientX, e.clientY].join()].join(" ")))
</script>"""


def test_it_points_types_shoots_and_takes_down_errors_and_requests(
    browser: Browser, tmp_path: Path
) -> None:
    file = tmp_path / "page.html"
    file.write_text(PAGE)
    page = browser.open(file.as_uri(), width=400, height=300, dark=True)
    assert page.requests == [file.as_uri()]
    assert page.evaluate("[innerWidth, matchMedia('(prefers-color-scheme: dark)').matches]") == [
        400,
        True,
    ]
    page.drag(10, 20, 30, 60)
    page.press("ArrowLeft")
    page.press("a")
    seen = page.wait_for("seen.at(-1) == 'keydown a' && seen")
    moves = [one for one in seen if one.startswith("pointermove")]
    assert seen[1] == "pointerdown 10,20"
    assert moves[-1] == "pointermove 30,60"
    assert seen[-3:] == ["pointerup 30,60", "keydown ArrowLeft", "keydown a"]
    assert page.evaluate("new Promise(done => setTimeout(() => done(7), 20))") == 7
    assert page.wait_for("seen.length") == len(seen)
    page.screenshot(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    page.evaluate("setTimeout(() => { throw new Error('thrown') }); console.error('said'); 1")
    wait_until(lambda: page.evaluate("true") and len(page.errors) == 2)
    assert sorted(error.splitlines()[0] for error in page.errors) == ["Error: thrown", "said"]
    with pytest.raises(BrowserError, match="must come true"):
        page.wait_for("false")
    with pytest.raises(BrowserError, match="is not defined"):
        page.evaluate("nowhere")
    page.close()


def test_a_page_on_a_phone_feels_fingers(browser: Browser) -> None:
    page = browser.open(f"data:text/html,{quote(PAGE)}", width=390, height=800, mobile=True)
    page.touch((100, 200), (100, 210))
    assert "pointerdown 100,200" in page.wait_for("seen.length && seen")
    assert page.evaluate("devicePixelRatio") == 2
    page.close()
