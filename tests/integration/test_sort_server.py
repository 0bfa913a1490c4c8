"""The server of `vggft sort`: what it answers to its page, and what it refuses to everybody else."""

import io
import json
import os
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image, features
from small_labelling import TOKEN, Window, photos, serving, session

from vggft.labelling.app import application
from vggft.labelling.applying import ClassFolders
from vggft.labelling.background import Applying
from vggft.labelling.decisions import FILE
from vggft.labelling.pictures import number
from vggft.labelling.previews import Previews

testclient = pytest.importorskip("starlette.testclient", reason="the extra 'sort' is not installed")

PORT = 8765
BASE = f"http://127.0.0.1:{PORT}"
HEADERS = {"X-Vggft-Token": TOKEN, "Origin": BASE, "Content-Type": "application/json"}


@pytest.fixture
def of(tmp_path):
    return session(photos(tmp_path / "photos", 4), "cats")


@pytest.fixture
def client(of, ui):
    with ThreadPoolExecutor(2) as pool:
        applying = Applying(of, ClassFolders.of(of.pictures.root, None), ui)
        yield testclient.TestClient(application(of, Previews(pool), applying, {}, PORT, TOKEN), BASE)


def pressed(client, *presses, headers=HEADERS):
    return client.post("/api/presses", content=json.dumps({"presses": presses}), headers=headers)


def decide(n, file, label="cats", **more):
    return {"window": "w", "number": n, "kind": "decide", "choices": [{"id": number(file), "label": label}], **more}


def test_it_records_keys_and_hands_out_pictures(client, of):
    answer = pressed(client, decide(1, "000.png"))
    assert answer.json()["results"] == [{"step": 1}]
    assert answer.json()["state"]["sorted"] == 1
    wanted = {"window": "w", "mode": "order", "label": "", "count": 2, "have": []}
    pictures = client.post("/api/next", content=json.dumps(wanted), headers=HEADERS).json()["pictures"]
    assert [(p["id"], p["name"]) for p in pictures] == [(number("001.png"), "001.png"), (number("002.png"), "002.png")]
    size = (of.pictures.root / "000.png").stat().st_size
    assert (of.pictures.root / FILE).read_text().splitlines()[1:] == [f"000.png,cats,,,1,{size}"]


@pytest.mark.parametrize("path", ["/api/state", "/api/picture/{id}/256"])
@pytest.mark.parametrize("headers", [{}, {"X-Vggft-Token": "t" * 31}, {"X-Vggft-Token": ""}])
def test_without_the_token_nothing_is_told(client, path, headers):
    answer = client.get(path.format(id=number("000.png")), headers=headers)
    assert answer.status_code == 403
    assert "000" not in answer.text


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:80", ""])
@pytest.mark.parametrize("path", ["/", "/page.js", "/api/state"])
def test_a_name_of_another_site_gets_nothing(client, host, path):
    assert client.get(path, headers={**HEADERS, "Host": host}).status_code == 421


def test_localhost_is_this_machine(client):
    headers = {**HEADERS, "Host": f"localhost:{PORT}", "Origin": f"http://localhost:{PORT}"}
    assert pressed(client, headers=headers).status_code == 200


ORIGINS = [
    "https://evil.example",
    "null",
    f"https://127.0.0.1:{PORT}",
    "http://127.0.0.1:9999",
    f"http://localhost:{PORT}",
]


@pytest.mark.parametrize("origin", [*ORIGINS, None])
def test_other_pages_cannot_press_keys(client, of, origin):
    headers = {name: value for name, value in {**HEADERS, "Origin": origin}.items() if value is not None}
    assert pressed(client, decide(1, "000.png"), headers=headers).status_code == 403
    assert not of.decisions.rows


def test_bodies_are_small_json(client, of):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert pressed(client, decide(1, "000.png"), headers={**HEADERS, "Content-Type": kind}).status_code == 415
    huge = client.post("/api/presses", content=b" " * 2_000_001, headers=HEADERS)
    assert huge.status_code == 413
    chunks = client.post("/api/presses", content=iter([b"{}"]), headers=HEADERS)
    assert chunks.status_code == 411
    assert not of.decisions.rows


HOSTILE = {
    "no JSON": b"{",
    "deep": b"[" * 100_000,
    "no object": b"[]",
    "not a number": b'{"presses": [{"window": "w", "number": NaN, "kind": "decide"}]}',
    "other kind": b'{"presses": [{"window": "w", "number": 1, "kind": "delete"}]}',
    "more fields": b'{"presses": [{"window": "w", "number": 1, "kind": "undo", "path": "/etc/passwd"}]}',
    "a path": b'{"presses": [{"window": "w", "number": 1, "kind": "skip", "ids": ["../../etc/passwd"]}]}',
    "huge number": b'{"presses": [{"window": "w", "number": 1' + b"0" * 5000 + b', "kind": "undo"}]}',
    "probability": b'{"presses": [{"window": "w", "number": 1, "kind": "decide", "choices": '
    b'[{"id": 1, "label": "cats", "suggested": "", "probability": 7}]}]}',
    "no text": b"\xff\xfe",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("path", ["presses", "next", "apply"])
def test_other_bodies_are_refused(client, of, path, body):
    answer = client.post(f"/api/{path}", content=body, headers=HEADERS)
    assert answer.status_code == 400
    assert "not understood" in answer.json()["error"]
    assert not of.decisions.rows


def test_odd_values_are_errors_of_one_key(client, of):
    answer = pressed(
        client,
        {"window": "w", "number": 1, "kind": "decide", "choices": [{"id": 5, "label": "cats"}]},
        decide(2, "000.png", "../../tmp"),
        decide(3, "000.png", "\ud800"),
        {"window": "w", "number": 4, "kind": "undo", "step": 99},
        decide(5, "001.png"),
    )
    results = answer.json()["results"]
    assert ["error" in result for result in results] == [True, True, True, True, False]
    assert [*of.decisions.labels.items()] == [("001.png", "cats")]


@pytest.mark.parametrize(
    "path",
    [
        *("/api/picture/1/256", "/api/picture/-1/256", "/api/picture/{id}/257", "/api/picture/{id}/0"),
        *(
            "/api/picture/..%2f..%2fetc%2fpasswd/256",
            "/../../etc/passwd",
            "/page/page.js",
            "/api/",
            "/api/picture/{id}",
        ),
        *("/page.html", "/000.png", "/%2e%2e/vggft-sort.csv", "/api/picture/9999999999999999999999/256"),
        f"/api/picture/{'9' * 5000}/256",
        "/api/picture/{id}/٢٥٦",
    ],
)
def test_no_path_leads_anywhere_else(client, path):
    assert client.get(path.format(id=number("000.png")), headers=HEADERS).status_code == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_refused(client, method):
    answer = client.request(method, "/api/presses", headers=HEADERS)
    assert answer.status_code == 405
    assert "access-control-allow-origin" not in answer.headers


def test_every_answer_forbids_scripts_guesses_and_memories(client):
    for path in ("/", "/page.js", "/page.css", "/api/state", f"/api/picture/{number('000.png')}/256", "/none"):
        headers = client.get(path, headers=HEADERS).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'"), path
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert headers["x-frame-options"] == "DENY"
        assert "server" not in headers


def test_a_picture_is_always_a_jpeg_made_here(client, of):
    root = of.pictures.root
    answer = client.get(f"/api/picture/{number('000.png')}/256", headers=HEADERS)
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).size == (40, 30)
    (root / "001.png").write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    (root / "002.png").write_text("<html><script>alert(1)</script></html>")
    (root / "003.png").unlink()
    for name, reason in (("001.png", "SVG"), ("002.png", "HTML"), ("003.png", "No such file")):
        answer = client.get(f"/api/picture/{number(name)}/1000", headers=HEADERS)
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/json"
        assert reason in answer.json()["error"]
    state = client.get("/api/state?window=w", headers=HEADERS).json()
    assert (state["total"], state["unreadable"]) == (1, 3)
    assert [file["name"] for file in state["unreadable_files"]] == ["001.png", "002.png", "003.png"]


def test_a_large_picture_is_made_smaller(client, of):
    rotated = Image.new("RGB", (3000, 1000), "red")
    exif = rotated.getexif()
    exif[0x0112] = 6
    rotated.save(of.pictures.root / "000.png", "JPEG", exif=exif)
    sizes = {}
    for side in (256, 1000, 1600, 4000):
        answer = client.get(f"/api/picture/{number('000.png')}/{side}", headers=HEADERS)
        sizes[side] = Image.open(io.BytesIO(answer.content)).size
    assert sizes == {256: (85, 256), 1000: (333, 1000), 1600: (533, 1600), 4000: (1000, 3000)}


@pytest.mark.slow
@pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow has no JPEG 2000")
def test_a_large_jpeg_2000_is_shown_as_far_as_it_is_decoded(client, of):
    Image.new("RGB", (4000, 3000), "red").save(of.pictures.root / "000.png", "JPEG2000", num_resolutions=6)
    answer = client.get(f"/api/picture/{number('000.png')}/4000", headers=HEADERS)
    assert Image.open(io.BytesIO(answer.content)).size == (1000, 750)


def put(client):
    """Wait until files have been put into folders; return what the page says of it."""
    for _ in range(500):
        applying = client.get("/api/state?window=w", headers=HEADERS).json()["applying"]
        if not applying.get("running", True):
            return applying
        time.sleep(0.01)
    raise AssertionError("files are being put into folders for ever")


def test_applying_from_the_page(client, of):
    root = of.pictures.root
    pressed(client, decide(1, "000.png"), decide(2, "001.png", ""))
    assert client.post("/api/apply", content=b'{"how": "move"}', headers=HEADERS).status_code == 200
    assert put(client)["message"].startswith(f"1 file moved into {root}-sorted. To undo it: vggft undo ")
    assert [path.name for path in (root.with_name("photos-sorted") / "cats").iterdir()] == ["000.png"]
    assert not (root / "000.png").exists()
    assert (root / "001.png").exists()
    state = client.get("/api/state?window=w", headers=HEADERS).json()
    assert (state["sorted"], state["total"]) == (1, 3)
    assert pressed(client, decide(3, "002.png")).json()["results"] == [{"step": 3}]


def test_a_folder_whose_name_is_not_utf_8_is_sorted(tmp_path, ui):
    root = photos(tmp_path / os.fsdecode(b"caf\xe9"), 1)
    of = session(root, "cats")
    about = {"folder": str(root)}
    with ThreadPoolExecutor(2) as pool:
        applying = Applying(of, ClassFolders.of(root, None), ui)
        client = testclient.TestClient(application(of, Previews(pool), applying, about, PORT, TOKEN), BASE)
        assert client.get("/api/state?window=w", headers=HEADERS).json()["folder"] == str(root)
        assert pressed(client, decide(1, "000.png")).json()["results"] == [{"step": 1}]
        (root / "000.png").unlink()
        client.post("/api/apply", content=b'{"how": "move"}', headers=HEADERS)
        message = put(client)["message"]
        assert f"Left out: 1 file: {root / '000.png'}: No such file" in message


def sent(address, path, body=None):
    origin = address.partition("/#")[0]
    request = urllib.request.Request(f"{origin}/{path}", body, {**HEADERS, "Origin": origin})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return answer.status


@pytest.mark.parametrize(("path", "body"), [("closed", b'{"window": "x"}'), ("apply", b'{"how": "copy"}')])
def test_while_a_request_waits_for_the_session_others_are_answered(of, ui, path, body):
    with serving(of, ui) as address, ThreadPoolExecutor(1) as pool:
        with of._lock:
            waiting = pool.submit(sent, address, f"api/{path}", body)
            time.sleep(0.1)  # it is being answered
            assert sent(address, "page.css") == 200
            assert not waiting.done()
        assert waiting.result(5) == 200


def test_keys_wait_while_files_are_put_into_folders(client, of):
    of.begin("putting files into folders")
    assert pressed(client, decide(1, "000.png")).status_code == 409
    of.end()
    assert pressed(client, decide(1, "000.png")).json()["results"] == [{"step": 1}]


def test_a_disk_that_is_full_is_said_and_the_key_can_come_again(client, of, monkeypatch):
    def full(self):
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr("featurize.disk.durable.sync_file", lambda path: full(None))
        Window(of).decide("cats", "003.png")  # the first row creates the file
        answer = pressed(client, decide(1, "000.png"))
        assert answer.status_code == 507
        assert "No space left on device" in answer.json()["error"]
    assert pressed(client, decide(1, "000.png")).json()["results"] == [{"step": 2}]
