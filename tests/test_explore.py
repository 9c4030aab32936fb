"""``dpvae explore``: what the page asks for, the border of HTTP, and the page in a browser."""

import base64
import http.client
import io
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import numpy as np
import pytest
import torch
from PIL import Image

from pyro_dpvae.cli import main
from pyro_dpvae.data import load, to_unit
from pyro_dpvae.decoders import images
from pyro_dpvae.evaluation import EvaluationConfig, Subject
from pyro_dpvae.explore import Explored, ExploreServer, explored
from pyro_dpvae.explore.asked import Asked
from pyro_dpvae.explore.pictures import png, shown
from pyro_dpvae.explore.ranks import standing
from pyro_dpvae.explore.state import RATIO, Place
from pyro_dpvae.explore.views import VIEWS
from pyro_dpvae.recipes import open_run
from tests.browser import Browser, Page
from tests.waiting import TIME_LIMIT

COUPLING = ["--prior", "coupling", "--prior.blocks", "2"]
BOX = [-2.0, 2.5, -3.0, 1.0]


def trained(folder: Path, *options: str) -> Explored:
    assert (
        main(
            ["train", "--batch-size", "100", "--backend", "eager", *options, "--out", str(folder)]
        )
        == 0
    )
    saved = open_run(folder)
    return explored(Subject(saved, saved.load_data(), EvaluationConfig(), progress=False))


@pytest.fixture(scope="module")
def moons(tmp_path_factory: pytest.TempPathFactory) -> Explored:
    options = ["--data", "two-moons", "--latent-dim", "2", "--steps", "20"]
    return trained(tmp_path_factory.mktemp("moons"), *options, *COUPLING)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Explored:
    options = ["--data", "digits", "--latent-dim", "4", "--steps", "20"]
    return trained(
        tmp_path_factory.mktemp("digits"),
        *options,
        *COUPLING,
        *("--network", "mlp", "--network.hidden", "[16]"),
    )


def ask(run: Explored, name: str, **fields: Any) -> dict[str, Any]:
    return VIEWS[name](run, Asked(json.dumps(fields)))


def densities(found: dict[str, Any], name: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(found[name]), "<f4")


# ---- pure functions


def test_a_point_is_the_same_from_either_space(digits: Explored) -> None:
    z0 = [0.3, -1.2, 0.8, 2.0]
    found = ask(digits, "point", space="generation", values=z0)
    with torch.no_grad():
        z = digits.prior.to_representation(torch.tensor(z0))
        assert found["z"] == pytest.approx(z.tolist(), abs=1e-6)
        assert found["log_p"] == pytest.approx(float(digits.prior().log_prob(z)), abs=1e-4)
        assert found["log_q"] == pytest.approx(float(digits.aggregate.log_prob(z)), abs=1e-4)
    standard = -0.5 * sum(value**2 for value in z0) - 2 * np.log(2 * np.pi)
    assert found["log_base"] == pytest.approx(standard, abs=1e-5)
    back = ask(digits, "point", space="representation", values=found["z"])
    assert back["z0"] == pytest.approx(z0, abs=1e-4)
    with torch.no_grad():
        x = to_unit(images(digits.decoder, z[None]), digits.preprocessing)[0]
    assert base64.b64decode(found["image"].split(",", 1)[1]) == png(x)


def test_held_out_data_have_the_labels_of_their_file(digits: Explored) -> None:
    found, data = ask(digits, "run"), load("digits")
    assert data.test_labels is not None
    points = ask(digits, "clouds", space="representation", axes=[0, 1])["clouds"]["held-out"]
    assert len(points) == len(found["labels"]) == found["held_out"]
    names = [found["label_names"][label] for label in found["labels"]]
    assert names == [str(label) for label in data.test_labels[: len(names)].tolist()]
    assert np.allclose(points, digits.held_out_means[:, :2])


def test_sequences_are_one_feature_after_another(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.random.default_rng(0).normal(size=(60, 7, 2)).astype("f4"))
    options = ["--data", str(tmp_path / "s.npy"), "--latent-dim", "2", "--steps", "3"]
    run = trained(tmp_path / "run", *options, *COUPLING, "--batch-size", "20")
    x = torch.rand(7, 2)
    np.testing.assert_allclose(shown(x)["values"], x.mT.flatten())
    values = ask(run, "point", space="generation", values=[0.0, 0.0])["values"]
    assert len(values) == 14
    assert all(isinstance(one, float) for one in values)


@pytest.mark.parametrize("classes", [10, 11])
def test_labels_have_a_colour_each_or_none(tmp_path: Path, classes: int) -> None:
    labels = np.arange(110) % classes
    x = np.random.default_rng(0).normal(size=(110, 3)).astype("f4")
    np.savez(tmp_path / "x.npz", x_train=x, x_test=x, labels_train=labels, labels_test=labels)
    options = ["--data", str(tmp_path / "x.npz"), "--latent-dim", "2", "--steps", "3"]
    run = trained(tmp_path / "run", *options, *COUPLING)
    assert len(run.label_names) == (10 if classes == 10 else 0)
    assert (run.labels is None) == (classes > 10)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_has_the_levels_of_the_image(channels: int) -> None:
    x = torch.linspace(-0.1, 1.1, channels * 20).reshape(channels, 5, 4)
    levels = np.asarray(Image.open(io.BytesIO(png(x)))).reshape(5, 4, channels)
    wanted = np.rint(255 * np.clip(x.numpy(), 0, 1)).transpose(1, 2, 0)
    assert np.array_equal(levels, wanted)


def test_ranks_are_those_of_counting(moons: Explored) -> None:
    cloud = moons.clouds["prior"]
    pocket = cloud.z[cloud.log_q.argsort()[37]]
    found = ask(moons, "point", space="representation", values=pocket.tolist())
    with torch.no_grad():
        log_q = moons.aggregate.log_prob(cloud.z)
        higher = sum(float(value) > found["log_q"] for value in log_q) / len(log_q)
    assert found["q_among_prior"] == pytest.approx(higher, abs=2 / len(log_q))
    assert higher == pytest.approx(1 - 38 / len(log_q), abs=2 / len(log_q))
    far = ask(moons, "point", space="representation", values=[500.0, 500.0])
    assert far["kind"] == "outside"


def test_equal_densities_make_no_pocket_and_no_leak() -> None:
    z = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    log_p = -0.5 * z.square().sum(-1)
    kinds = {}
    for gap in (0.0, 3.0):  # log p - log q
        draws = Place(z, z, log_p, log_p - gap, torch.zeros(500))
        kinds[gap] = [standing(draws[n : n + 1], draws, draws).kind for n in range(500)]
    assert set(kinds[0.0]) == {"covered", "tail", "outside"}
    assert set(kinds[3.0]) == {"covered", "pocket", "outside"}


def test_a_port_that_is_taken_is_refused_before_anything_is_encoded() -> None:
    def encoded() -> NoReturn:
        raise AssertionError("encoded before the port was had")

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} cannot be opened"):
            ExploreServer(encoded, port)


@pytest.mark.parametrize("space", ["generation", "representation"])
def test_maps_hold_the_densities_of_their_space(digits: Explored, space: str) -> None:
    values, axes, size = [0.1, 0.2, 0.3, 0.4], [3, 1], 6
    bands = [
        ask(digits, "map", space=space, values=values, axes=axes, box=BOX, size=size, **band)
        for band in ({"first": 0, "rows": 4}, {"first": 4, "rows": 2})
    ]
    log_p, log_q = (
        np.concatenate([densities(band, name) for band in bands]).reshape(size, size)
        for name in ("log_p", "log_q")
    )
    row, column = 4, 1
    point = torch.tensor(values)
    point[3] = -2 + (column + 0.5) / size * 4.5
    point[1] = 1 - (row + 0.5) / size * 4
    if space == "representation":
        with torch.no_grad():
            truth_p, truth_q = digits.prior().log_prob(point), digits.aggregate.log_prob(point)
    else:  # p(z) |det dz/dz0|, with the determinant from autograd
        z = digits.prior.to_representation(point)
        jacobian = torch.autograd.functional.jacobian(digits.prior.to_representation, point)
        log_det = torch.linalg.slogdet(jacobian).logabsdet
        with torch.no_grad():
            truth_p = digits.prior().log_prob(z) + log_det
            truth_q = digits.aggregate.log_prob(z) + log_det
    assert log_p[row, column] == pytest.approx(float(truth_p), abs=1e-4)
    assert log_q[row, column] == pytest.approx(float(truth_q), abs=1e-3)


def test_what_is_taken_is_what_it_is_called(digits: Explored) -> None:
    again = [ask(digits, "take", what="prior", index=seed)["z"] for seed in (5, 5, 6)]
    assert again[0] == again[1] != again[2]
    pockets = [ask(digits, "take", what="pockets", index=index)["z"] for index in range(400)]
    of_prior = digits.clouds["prior"]
    least = of_prior.z[of_prior.log_q.topk(400, largest=False).indices]
    assert sorted(pockets) == [pytest.approx(z) for z in sorted(least.tolist())]
    with torch.no_grad():
        log_p = digits.prior().log_prob(least)
        ratio = digits.aggregate.log_prob(least) - log_p
    # Clear differences come first, then the half where the prior draws most, then the ratio.
    order = 1e6 * (ratio > -RATIO) + 1e3 * (log_p < log_p.median()) + ratio
    assert pockets[0] == pytest.approx(least[order.argmin()].tolist())
    datum = ask(digits, "take", what="held-out", index=3)
    levels = Image.open(io.BytesIO(base64.b64decode(datum["image"].split(",", 1)[1])))
    assert np.asarray(levels) / 255 == pytest.approx(digits.held_out[3][0].numpy(), abs=1e-6)


@pytest.mark.parametrize(
    ("dim", "prior", "guide"),
    [(1, "standard", "amortized"), (2, "mixture", "amortized"), (2, "standard", "flow")],
)
def test_one_latent_and_priors_without_a_map_and_flows_have_all_views(
    tmp_path: Path, dim: int, prior: str, guide: str
) -> None:
    vectors = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    np.save(tmp_path / "vectors.npy", vectors)
    run = trained(
        tmp_path / "run",
        *("--data", str(tmp_path / "vectors.npy"), "--batch-size", "10", "--steps", "2"),
        *("--latent-dim", str(dim), "--prior", prior, "--guide", guide),
    )
    about = ask(run, "run")
    assert (about["one_space"], about["points"]) == (True, None)
    point = {"space": "generation", "values": [0.5] * dim}
    found = ask(run, "point", **point)
    assert found["z"] == found["z0"]
    assert len(found["values"]) == 3
    axes = about["axes"]["generation"]
    assert axes == ([0, 0] if dim == 1 else [0, 1])
    box = ask(run, "clouds", space="generation", axes=axes)["box"]
    rows = ask(run, "map", **point, axes=axes, box=box, size=4, first=0, rows=4)
    assert np.isfinite(densities(rows, "log_q")).all()


# ---- the border


@pytest.fixture(scope="module")
def served(moons: Explored, digits: Explored) -> Iterator[dict[str, ExploreServer]]:
    servers = {"moons": ExploreServer(lambda: moons), "digits": ExploreServer(lambda: digits)}
    threads = [threading.Thread(target=server.serve_forever) for server in servers.values()]
    for thread in threads:
        thread.start()
    yield servers
    for server in servers.values():
        server.shutdown()
        server.server_close()
    for thread in threads:
        thread.join()


def request(
    server: ExploreServer, target: str, method: str = "GET", host: str | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=TIME_LIMIT)
    headers = {"Host": host} if host is not None else {}
    with closing(connection):
        connection.request(method, target, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()


def test_it_listens_to_its_own_machine_and_name_alone(served: dict[str, ExploreServer]) -> None:
    server = served["moons"]
    assert server.server_address[0] == "127.0.0.1"
    port = server.server_port
    for host in ("evil.example", f"evil.example:{port}", f"127.0.0.1.evil:{port}", ""):
        assert request(server, "/", host=host)[0] == 403
    for host in (f"localhost:{port}", "localhost:9000", "127.0.0.1:9000", "localhost"):
        assert request(server, "/", host=host)[0] == 200  # ssh -L 9000:localhost:...
    for host in ("localhost.evil:9000", "localhost:9000.evil", "localhost:", "evil@localhost"):
        assert request(server, "/", host=host)[0] == 403


@pytest.mark.parametrize(
    "line",
    [b"GARBAGE", b"GET / HTTP/9.x", b"GET http://[ HTTP/1.1", b"GET a b c HTTP/1.1", b"\xff\xfe"],
)
def test_a_malformed_request_line_is_refused_with_a_status(
    line: bytes, served: dict[str, ExploreServer]
) -> None:
    address = ("127.0.0.1", served["moons"].server_port)
    with socket.create_connection(address, timeout=TIME_LIMIT) as connection:
        connection.sendall(line + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 400
        assert "must be" in json.loads(answer.read())["error"]


def test_connections_are_bounded_and_are_served_again(served: dict[str, ExploreServer]) -> None:
    server = served["moons"]
    address = ("127.0.0.1", server.server_port)
    held = [socket.create_connection(address, timeout=TIME_LIMIT) for _ in range(64)]
    try:
        status = None
        while status != 503:  # once all of them are taken
            with suppress(ConnectionError):
                status = request(server, "/")[0]
        assert threading.active_count() < 64 + 30
    finally:
        for connection in held:
            connection.close()
    while status != 200:  # once they have ended
        with suppress(ConnectionError):
            status = request(server, "/")[0]


def test_what_it_refuses_it_refuses_in_a_sentence(served: dict[str, ExploreServer]) -> None:
    point = '{"space": "generation", "values": %s}'
    refused = {
        "/api/point?q={bad": (400, "must be JSON"),
        "/api/point?q=[1]": (400, "must be a JSON object"),
        "/api/point": (400, "must have the field 'space'"),
        "/api/point?q=" + point % "[NaN, 1]": (400, "numbers must be finite, got NaN"),
        "/api/point?q=" + point % "[1e999, 1]": (400, "numbers within"),
        "/api/point?q=" + point % "[1e7, 1]": (400, "numbers within"),
        "/api/point?q=" + point % "[true, 1]": (400, "numbers within"),
        "/api/point?q=" + point % "[1]": (400, "a list of 2 numbers, got 1"),
        "/api/point?q=" + point % f"[1{'0' * 400}, 1]": (400, "numbers within"),
        "/api/point?q=" + "[" * 5000: (400, "must be JSON"),
        "/api/clouds?q=" + '{"space": "generation", "axes": [0, 2]}': (400, "axes must be"),
        "/api/take?q=" + '{"what": "leaks", "index": -1}': (400, "index must be"),
        "/api/run?q=" + '{"more": 1}': (400, "no other fields"),
        "/api/point?q=" + "1" * 60_000: (414, "at most"),
        "/../../../etc/passwd": (404, "does not exist on this page"),
        "/%2e%2e/server.py": (404, "does not exist on this page"),
        "/page/../server.py": (404, "does not exist on this page"),
    }
    for target, (status, sentence) in refused.items():
        got, headers, body = request(served["moons"], quote(target, safe="/?=.%"))
        assert (got, sentence in json.loads(body)["error"]) == (status, True), (target, body)
        assert headers["Content-Type"] == "application/json"


def test_methods_other_than_get_are_refused(served: dict[str, ExploreServer]) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "HEAD"):
        status, headers, _ = request(served["moons"], "/api/run", method)
        assert (status, headers["Allow"]) == (405, "GET")


def test_pages_may_load_nothing_from_elsewhere(served: dict[str, ExploreServer]) -> None:
    _, headers, body = request(served["moons"], "/")
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert b"http" not in body


# ---- the page


def opened(browser: Browser, server: ExploreServer, **options: Any) -> Page:
    page = browser.open(server.url, **options)
    page.wait_for("document.body.dataset.ready && document.body.dataset.at")
    return page


def spot(page: Page, space: str, across: float, down: float) -> tuple[float, float]:
    """A point of a panel, in parts of it, as pixels of the window."""
    page.evaluate(f"document.getElementById('{space}').scrollIntoView()")
    frame = f"document.querySelector('#{space} canvas').getBoundingClientRect()"
    box = page.evaluate(f"(f => [f.left, f.top, f.width, f.height])({frame})")
    return box[0] + across * box[2], box[1] + down * box[3]


def state(page: Page) -> tuple[str, list[float]]:
    """The space and coordinates of the address, once the server has answered for them."""
    page.wait_for("document.body.dataset.at == location.hash")
    space, text = page.evaluate("location.hash.match(/at=([^&]*)/)[1]").split(":")
    return space, [float(value) for value in text.split(",")]


def coordinates(page: Page) -> list[list[float]]:
    """z0 and z as the page tells them."""
    table = page.evaluate(
        "[...document.querySelectorAll('#coordinates tr')].map(r => "
        "[...r.cells].slice(1).map(c => Number(c.textContent.replace('\\u2212', '-'))))"
    )
    return [list(column) for column in zip(*table, strict=True)]


def canvas(page: Page, space: str) -> str:
    return str(page.evaluate(f"document.querySelector('#{space} canvas').toDataURL()"))


def test_a_drag_in_one_space_moves_the_point_in_the_other(
    browser: Browser, served: dict[str, ExploreServer], digits: Explored
) -> None:
    page = opened(browser, served["digits"])
    before = page.evaluate("document.getElementById('decoded').src")
    page.drag(*spot(page, "generation", 0.5, 0.5), *spot(page, "generation", 0.8, 0.3))
    page.wait_for(f"document.getElementById('decoded').src != {json.dumps(before)}")
    space, z0 = state(page)
    axes = ask(digits, "run")["axes"]["generation"]
    left, right, bottom, top = ask(digits, "clouds", space="generation", axes=axes)["box"]
    assert space == "generation"
    assert z0[axes[0]] == pytest.approx(left + 0.8 * (right - left), abs=0.02 * (right - left))
    assert z0[axes[1]] == pytest.approx(top - 0.3 * (top - bottom), abs=0.02 * (top - bottom))
    with torch.no_grad():
        z = digits.prior.to_representation(torch.tensor(z0))
    assert coordinates(page)[1] == pytest.approx(z.tolist(), abs=1e-3)
    page.drag(*spot(page, "representation", 0.5, 0.5), *spot(page, "representation", 0.4, 0.6))
    page.wait_for("location.hash.includes('at=representation')")
    _, z_there = state(page)
    with torch.no_grad():
        z0_there = digits.prior.to_generation(torch.tensor(z_there))[0]
    assert coordinates(page)[0] == pytest.approx(z0_there.tolist(), abs=1e-3)
    assert page.errors == []
    assert all(url.startswith(served["digits"].url) for url in page.requests)
    page.close()


def test_keys_buttons_and_switches_do_as_they_say_and_a_reload_keeps_the_view(
    browser: Browser, served: dict[str, ExploreServer], moons: Explored, tmp_path: Path
) -> None:
    page = opened(browser, served["moons"], dark=True)
    _, start = state(page)
    page.evaluate("document.querySelector('#generation canvas').focus()")
    page.press("ArrowRight")
    page.press("ArrowDown", shift=True)
    page.wait_for("(document.body.dataset.at || '').includes('-')")
    _, moved = state(page)
    left, right, *_ = ask(moons, "clouds", space="generation", axes=[0, 1])["box"]
    step = (right - left) / 100
    assert moved == pytest.approx([start[0] + step, start[1] - 10 * step], abs=1e-5)

    page.wait_for("document.body.dataset.maps == 'done'")
    shown = canvas(page, "representation")
    page.evaluate("document.querySelector('[name=map][value=difference]').click()")
    assert "pockets" in page.evaluate("document.querySelector('#generation .legend').textContent")
    assert canvas(page, "representation") != shown
    shown = canvas(page, "representation")
    page.evaluate("document.querySelector('#clouds [value=prior]').click()")
    assert canvas(page, "representation") != shown

    page.evaluate("document.querySelector('[data-take=pockets]').click()")
    page.wait_for("location.hash.includes('at=representation')")
    assert state(page)[1] == pytest.approx(moons.clouds["pockets"].z[0].tolist(), rel=1e-6)
    page.evaluate("document.querySelector('[data-take=held-out]').click()")
    page.wait_for("location.hash.includes('datum=0')")
    assert state(page)[1] == pytest.approx(moons.held_out_means[0].tolist(), rel=1e-6)
    values = json.loads(page.evaluate("document.getElementById('datum-values').dataset.values"))
    assert values == pytest.approx(moons.held_out[0].tolist(), abs=1e-6)

    kept = page.evaluate("location.hash")
    told = coordinates(page)
    page.reload()
    page.wait_for("document.body.dataset.ready && document.body.dataset.at")
    assert page.evaluate("location.hash") == kept
    assert coordinates(page) == told
    assert page.evaluate("document.querySelector('[name=map]:checked').value") == "difference"
    assert page.evaluate("document.querySelector('#clouds [value=prior]').checked")
    assert not page.evaluate("document.getElementById('datum-figure').hidden")
    page.evaluate("document.getElementById('reset').click()")
    page.wait_for("!location.hash.includes('datum')")
    assert state(page) == ("generation", start)
    assert page.errors == []
    page.close()


def test_a_finger_moves_the_point_on_a_phone_and_nothing_sticks_out(
    browser: Browser, served: dict[str, ExploreServer]
) -> None:
    page = opened(browser, served["digits"], width=390, height=844, mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    before = page.evaluate("location.hash")
    page.touch(spot(page, "representation", 0.5, 0.5), spot(page, "representation", 0.7, 0.6))
    page.wait_for(f"location.hash != {json.dumps(before)}")
    assert state(page)[0] == "representation"
    assert page.errors == []
    page.close()
