"""The page of the service in a browser, with real photographs: each screen on a desktop's and on a phone's width."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from facenet.service.keys import add_key
from tests.helpers.browsing import HEIGHTS, Visit, chromium, launched, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, FloatRect, Locator

pytestmark = [pytest.mark.browser, pytest.mark.lfw]
STRANGE = "Zoë <b>O'Hara/Ng</b> 100%"  # a name that must stay text


class Person(NamedTuple):
    name: str
    photos: list[Path]


@pytest.fixture(scope="module")
def everybody(lfw_root: Path) -> list[Person]:
    """People with four photos or more, by name."""
    folders = [folder for folder in sorted((lfw_root / "images").iterdir()) if folder.is_dir()]
    found = (Person(folder.name.replace("_", " "), sorted(folder.glob("*.jpg"))) for folder in folders)
    return [person for person in found if 4 <= len(person.photos) <= 6]


@pytest.fixture(scope="module")
def people(everybody: list[Person]) -> list[Person]:
    """Ten people who are enrolled."""
    return everybody[:10]


@pytest.fixture(scope="module")
def stranger(everybody: list[Person]) -> Person:
    """One who is not."""
    return everybody[10]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module", params=sorted(HEIGHTS))
def width(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(scope="module")
def address(
    browser: Browser, width: int, people: list[Person], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A service whose gallery was empty, and in which ten people were enrolled through the page."""
    with serving(tmp_path_factory.mktemp("service"), "thumbnails=kept") as found:
        with Visit(browser, found, width) as visit:
            check_empty(visit)
            for person in people:
                enrol(visit, person.photos[0], person.name)
            visit.look("enrolled")
            assert "10 faces of 10 people" in visit.page.locator("footer").inner_text()
        yield found


@pytest.fixture
def visit(browser: Browser, address: str, width: int) -> Iterator[Visit]:
    with Visit(browser, address, width) as made:
        yield made


def check_empty(visit: Visit) -> None:
    visit.find("heading", "The gallery is empty").wait_for()
    visit.look("empty")
    for screen, told in (("people", "Nobody is enrolled yet"), ("clusters", "No faces without a name")):
        visit.open(f"#/{screen}").page.get_by_text(told).wait_for()
        visit.look(f"empty-{screen}")
    visit.open("#/")


def enrol(visit: Visit, photo: Path, name: str) -> None:
    """Enrol the first face of a photo with the keyboard alone."""
    visit.choose(photo)
    face = visit.faces()[0]
    face.get_by_text("Enrol as …").press("Enter")
    face.get_by_label("Name").fill(name)
    if name.startswith("A"):
        visit.page.keyboard.press("Enter")
    else:
        face.get_by_role("button", name="Enrol").click()
    face.get_by_text(f"Enrolled as {name}.").wait_for()


def post(address: str, photo: Path) -> None:
    """Enrol a photo without a name, as a program does."""
    body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n%b\r\n--x--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    asked = urllib.request.Request(f"{address}/v1/items", body % photo.read_bytes(), headers)
    with urllib.request.urlopen(asked) as answer:
        assert answer.status == 201


def rectangle(part: Locator) -> FloatRect:
    """Return the x, y, width and height of a part that is shown."""
    found = part.bounding_box()
    assert found is not None
    return found


def bar(row: Locator) -> tuple[float, float]:
    """Return the ends of a bar's length and its mark, from 0 to 1."""
    inside, length, mark = (rectangle(row.locator(part)) for part in (".bar", ".bar i:not(.mark)", ".bar .mark"))
    return length["width"] / inside["width"], (mark["x"] + mark["width"] / 2 - inside["x"]) / inside["width"]


def test_tells_who_a_photo_shows_and_why(visit: Visit, people: list[Person]) -> None:
    visit.give("drop", people[3].photos[1])
    face = visit.faces()[0]
    assert face.locator(".verdict").inner_text() == people[3].name
    rows = face.locator(".near li").all()
    assert len(rows) == 5
    assert people[3].name in rows[0].inner_text()
    length, mark = bar(rows[0])
    assert 0 < length < mark < 1
    length, mark = bar(rows[1])
    assert mark < length
    shown = rows[0].locator("img")
    shown.wait_for()
    assert shown.evaluate("image => image.naturalWidth") > 0
    assert len(face.locator(".why").inner_text()) > 20
    visit.look("match")

    box = visit.find("button", "Face 1")
    photo, frame = rectangle(visit.page.locator(".photo")), rectangle(box)
    assert 0.2 < frame["width"] / photo["width"] < 0.6, "faces of LFW fill about two fifths of the photo"
    assert abs(frame["x"] + frame["width"] / 2 - photo["x"] - photo["width"] / 2) < 0.15 * photo["width"]
    box.press("Enter")
    assert face.evaluate("card => card === document.activeElement")


def test_tells_that_a_stranger_is_nobody(visit: Visit, stranger: Person) -> None:
    visit.give("paste", stranger.photos[0])
    face = visit.faces()[0]
    assert face.locator(".verdict").inner_text().lower() == "no match"
    length, mark = bar(face.locator(".near li").first)
    assert mark < length
    visit.look("no-match")


def test_shows_an_error_as_the_service_says_it(visit: Visit, tmp_path: Path, people: list[Person]) -> None:
    (tmp_path / "broken.jpg").write_bytes(people[0].photos[0].read_bytes()[:400])
    with visit.page.expect_response("**/v1/search") as answer:
        visit.choose(tmp_path / "broken.jpg")
    error = answer.value.json()["error"]
    told = visit.find("alert")
    told.wait_for()
    assert error["message"].lower() in told.inner_text().lower()
    visit.page.get_by_text(error["request_id"]).wait_for()
    visit.look("error")


def test_lists_and_finds_people(visit: Visit, people: list[Person]) -> None:
    visit.find("link", "People").first.click()
    cards = visit.page.locator(".people li")
    cards.nth(5).wait_for()
    visit.look("people")
    visit.page.get_by_label("Search").fill(people[6].name[:6])
    visit.page.get_by_text(people[0].name).wait_for(state="detached")
    assert people[6].name in cards.first.inner_text()
    visit.page.get_by_label("Search").fill("Nobody")
    visit.page.get_by_text("Nobody's name begins with").wait_for()


def test_renames_and_merges(visit: Visit, people: list[Person], width: int) -> None:
    for place in (0, 1):
        enrol(visit.open("#/"), people[7 + place].photos[1], f"Twin {place}")
    visit.open(f"#/people/{people[6].name}")
    visit.find("button", "Rename").click()
    visit.look("rename")
    visit.page.get_by_label("New name").fill(STRANGE)
    visit.page.keyboard.press("Enter")
    visit.find("heading", STRANGE).wait_for()
    assert visit.find("status").inner_text() == f"{people[6].name} is now {STRANGE}"
    visit.page.reload()
    visit.page.locator(".faces li").first.wait_for()

    visit.open("#/people/Twin%200")
    visit.find("button", "Merge into another").click()
    visit.page.get_by_label("Merge into").fill("Nobody of this name")
    visit.find("button", "Merge", exact=True).click()
    visit.find("alert").get_by_text("Nobody else is called").wait_for()
    visit.look("merge")
    visit.page.get_by_label("Merge into").fill(people[7].name)
    visit.find("button", "Merge", exact=True).click()
    visit.find("heading", people[7].name).wait_for()
    visit.page.locator(".faces li").nth(1).wait_for()

    visit.open("#/people/Twin%201")  # a new name that is taken asks once more, then merges
    visit.find("button", "Rename").click()
    visit.page.get_by_label("New name").fill(people[8].name)
    visit.page.keyboard.press("Enter")
    visit.page.get_by_text("Are both one person?").wait_for()
    visit.find("button", "Merge", exact=True).click()
    visit.find("heading", people[8].name).wait_for()
    visit.page.locator(".faces li").nth(1).wait_for()
    visit.look("person")


def test_removes_a_face_and_a_person(visit: Visit, people: list[Person]) -> None:
    enrol(visit, people[9].photos[1], "Somebody else")
    enrol(visit, people[9].photos[2], "Somebody else")
    visit.open("#/people/Somebody%20else")
    visit.find("button", "Remove face 2").click()
    visit.look("remove")
    visit.find("button", "Cancel").click()
    assert visit.page.locator(".faces li").count() == 2
    visit.find("button", "Remove face 2").click()
    visit.page.locator("dialog").get_by_role("button", name="Remove").click()
    visit.page.locator(".faces li").nth(1).wait_for(state="detached")
    assert visit.page.locator("h1").evaluate("heading => heading === document.activeElement")
    visit.find("button", "Remove", exact=True).first.click()
    visit.page.locator("dialog").get_by_role("button", name="Remove").click()
    visit.find("heading", "People", exact=True).wait_for()
    visit.page.get_by_text(people[0].name).wait_for()
    assert visit.page.get_by_text("Somebody else", exact=True).count() == 0


def test_names_a_cluster(visit: Visit, address: str, everybody: list[Person]) -> None:
    for photo in everybody[12].photos[:4]:
        post(address, photo)
    visit.open("#/clusters")
    card = visit.page.locator("main article").first
    card.wait_for()
    assert card.locator("h2").inner_text() == "4 faces"
    visit.look("clusters")
    card.get_by_label("Face 4").uncheck()
    card.get_by_label("Name").fill("Named together")
    card.get_by_role("button", name="Name these faces").click()
    card.get_by_text("3 faces are now Named together.").wait_for()
    visit.open("#/people/Named%20together").page.locator(".faces li").nth(2).wait_for()
    assert visit.page.locator(".faces li").count() == 3


@pytest.mark.parametrize("same", [True, False])
def test_compares_two_photos(visit: Visit, people: list[Person], same: bool) -> None:
    visit.find("link", "Compare").click()
    visit.look("compare")
    visit.choose(people[0].photos[0], 0)
    visit.choose(people[0].photos[2] if same else people[1].photos[0], 1)
    answer = visit.page.locator(".answer")
    assert answer.locator(".verdict").inner_text().lower() == ("one person" if same else "two people")
    length, mark = bar(answer)
    assert (length < mark) is same
    assert visit.page.locator(".box").count() == 2
    visit.look("one-person" if same else "two-people")


def test_tells_that_there_is_no_camera(visit: Visit, people: list[Person]) -> None:
    visit.find("button", "Take a photo").click()
    visit.find("dialog", "No camera").wait_for()
    visit.look("no-camera")
    visit.page.locator("dialog input").set_input_files(people[2].photos[1])
    assert visit.faces()[0].locator(".verdict").inner_text() == people[2].name


def test_takes_a_photo_with_the_camera(
    browser: Browser, address: str, width: int, people: list[Person], tmp_path: Path
) -> None:
    film = tmp_path / "camera.mjpeg"
    film.write_bytes(people[2].photos[1].read_bytes())
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with (
        launched(browser.browser_type, *fake, f"--use-file-for-fake-video-capture={film}") as other,
        Visit(other, address, width) as visit,
    ):
        visit.find("button", "Take a photo").click()
        visit.page.locator("dialog button:enabled").nth(1).wait_for()  # the first picture has come
        visit.look("camera")
        visit.find("button", "Take the photo").click()
        assert visit.faces()[0].locator(".verdict").inner_text() == people[2].name


def test_tries_again_when_the_service_is_there_again(visit: Visit, people: list[Person]) -> None:
    visit.context.set_offline(True)
    visit.choose(people[2].photos[1])
    visit.find("alert").get_by_text("can not be reached").wait_for()
    visit.look("offline")
    visit.find("button", "Try again").click()
    visit.find("alert").get_by_text("can not be reached").wait_for()
    visit.context.set_offline(False)  # the browser says so, and the page asks
    assert visit.faces()[0].locator(".verdict").inner_text() == people[2].name


@pytest.mark.parametrize("status", [429, 503])
def test_waits_as_long_as_a_busy_service_asks(visit: Visit, people: list[Person], status: int) -> None:
    answers = iter([status])

    def answer(route: Any) -> None:
        if next(answers, None):
            body = '{"error": {"code": "busy", "message": "64 pictures are in work", "request_id": "1", "details": []}}'
            route.fulfill(status=status, headers={"Retry-After": "3"}, content_type="application/json", body=body)
        else:
            route.continue_()

    visit.page.route("**/v1/search", answer)
    visit.choose(people[2].photos[1])
    visit.find("alert").get_by_text("64 pictures are in work").wait_for()
    visit.page.get_by_text("The page tries again in").wait_for()
    if status == 503:
        visit.look("busy")
    assert visit.faces()[0].locator(".verdict").inner_text() == people[2].name


def test_asks_for_a_key_and_keeps_to_its_role(
    browser: Browser, width: int, people: list[Person], tmp_path: Path
) -> None:
    keys = {role: add_key(tmp_path / "keys.json", role, role) for role in ("read", "write")}
    with serving(tmp_path, f"keys={tmp_path / 'keys.json'}", "thumbnails=kept") as address:
        with Visit(browser, address, width) as visit:
            visit.find("alert").get_by_text("A key is needed").wait_for()
            visit.look("key")
            for key in ("wrong", keys["write"]):
                visit.page.get_by_label("Key").fill(key)
                visit.find("button", "Use this key").click()
            visit.find("heading", "Who is this?").wait_for()
            enrol(visit, people[0].photos[0], people[0].name)
            visit.page.reload()
            visit.find("heading", "Who is this?").wait_for()  # the key lasts as long as the tab
        with Visit(browser, address, width) as visit:
            visit.page.get_by_label("Key").fill(keys["read"])
            visit.find("button", "Use this key").click()
            visit.choose(people[0].photos[1])
            assert visit.faces()[0].locator(".verdict").inner_text() == people[0].name
            assert visit.page.get_by_text("Enrol as").count() == 0
            visit.look("read-only")
            visit.page.goto(f"{address}/#/people/{people[0].name}")
            visit.page.locator(".faces img").wait_for()
            assert visit.find("button").all_inner_texts() == ["Forget the key"]
            visit.look("read-only-person")
            visit.find("button", "Forget the key").click()
            visit.page.get_by_label("Key").wait_for()
