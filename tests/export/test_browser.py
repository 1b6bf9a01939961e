"""The page in headless Chromium, against the engine. Needs Chromium and npm, which fetches transformers.js; skipped without them."""

import contextlib
import functools
import http.server
import json
import shutil
import subprocess
import threading
import urllib.parse

import numpy as np
import pytest
from click.testing import CliRunner

import modernbert
from modernbert.checkpoint.names import EMBEDDER
from modernbert.cli import main
from modernbert.errors import CheckpointError
from modernbert.export.browser import export_page

onnxruntime = pytest.importorskip("onnxruntime")
playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM, NPM = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("npm")
needs_browser = pytest.mark.skipif(not (CHROMIUM and NPM), reason="needs chromium and npm")

LONG = "It was the best of times, it was the worst of times; seven days make a week. " * 8
"""Longer than the model's window, and than the two blocks that the exported band cuts it into."""
TEXTS = ["def add(a, b):", LONG, "x"]
QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-quic")
SOFTWARE_WEBGPU = (
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan",
    "--use-vulkan=swiftshader",
)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(tiny_folder, tmp_path_factory):
    """The folder that `export_page` writes, with what npm puts beside it."""
    folder = tmp_path_factory.mktemp("site")
    export_page(tiny_folder, folder, forms=("fp32", "int8", "q4"))
    subprocess.run([NPM, "install", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True, capture_output=True)
    return folder


@contextlib.contextmanager
def opened(site):
    """The page of a folder once it has filled its first mask; ends with no request having gone anywhere but to its own server."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *QUIET, *SOFTWARE_WEBGPU])
        page = browser.new_page()
        hosts = set()
        page.on("request", lambda request: hosts.add(urllib.parse.urlparse(request.url).netloc))
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        settled(page)
        yield page
        browser.close()
    server.shutdown()
    server.server_close()
    assert hosts == {f"127.0.0.1:{server.server_port}"}


@pytest.fixture(scope="module")
def page(site):
    with opened(site) as page:
        yield page


def settled(page):
    page.wait_for_selector("body[data-state=ready], body[data-state=failed]", timeout=60_000)
    return page.inner_text("#status")


def call(page, function, *arguments, dtype="fp32", device="wasm"):
    """What a function of app.js returns with these settings."""
    script = f"""async ([dtype, device, given]) => {{
        document.getElementById("dtype").value = dtype;
        document.getElementById("device").value = device;
        return await (await import("./app.js")).{function}(...given);
    }}"""
    return page.evaluate(script, [dtype, device, list(arguments)])


@needs_browser
def test_the_packaged_models_fill_a_mask_and_find_a_text_in_8_bits(tmp_path):
    """What docs/browser.md shows. Vectors are the engine's within 1e-2 of a length of 1: what 8 bits may cost here."""
    export_page("tiny", tmp_path, vectors=EMBEDDER, forms=("int8",))
    subprocess.run([NPM, "install", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=tmp_path, check=True, capture_output=True)
    engine = modernbert.load(EMBEDDER, device="cpu", dtype="float32")
    texts = ["query: where do ants live", "document: Colonies of ants dig nests under stones and in soil."]
    with opened(tmp_path) as page:
        assert page.locator("#found li").first.inner_text().startswith("Paris")
        page.fill("#query", "where do ants live")
        page.fill("#texts", "Bees build combs of wax in hollow trees.\nColonies of ants dig nests under stones and in soil.")
        page.click("#search button")
        page.wait_for_function("document.body.dataset.state != 'working'")
        assert settled(page).endswith("ms"), page.inner_text("#status")
        assert page.locator("#ranked li").first.inner_text().startswith("Colonies of ants")
        vectors = np.array(call(page, "embed", texts, dtype="q8"))
    assert np.abs(vectors - engine.embed(texts, normalize=True)).max() < 1e-2


@needs_browser
def test_a_classifiers_page_names_the_classes_that_the_engine_does(model_folder, tmp_path, site):
    """float32 both; shown scores have three decimals."""
    folder = model_folder("sequence")
    export_page(folder, tmp_path, forms=("fp32",))
    (tmp_path / "node_modules").symlink_to(site / "node_modules")
    expected = modernbert.load(folder).classify(LONG, top_k=None)
    with opened(tmp_path) as page:
        assert page.locator("#words").is_hidden()
        assert page.locator("#classes li").count() == 3
        page.fill("#labelled", LONG)
        page.click("#classify button")
        page.wait_for_function("document.body.dataset.state != 'working'")
        assert settled(page).endswith("ms"), page.inner_text("#status")
        assert page.locator("#classes li").evaluate_all("lines => lines.map(line => line.firstChild.textContent)") == [
            one["label"] for one in expected
        ]
        scores = [float(score) for score in page.locator("#classes span").all_inner_texts()]
    assert scores == pytest.approx([one["score"] for one in expected], abs=6e-4)


@needs_browser
def test_the_page_fills_a_mask_when_it_opens_and_again_when_asked(page, tiny_folder):
    """Shown scores have three decimals; the order of equal ones is left open by comparing scores."""
    expected = modernbert.load(tiny_folder)
    page.select_option("#dtype", "fp32")
    for text in ("The capital of France is [MASK].", "Seven days make a [MASK]."):
        page.fill("#masked", text)
        page.click("#fill button")
        page.wait_for_function("document.body.dataset.state != 'working'")
        assert settled(page).endswith("ms"), page.inner_text("#status")
        shown = [float(score) for score in page.locator("#found span").all_inner_texts()]
        assert shown == pytest.approx([word["score"] for word in expected.fill_mask(text)], abs=6e-4)


@needs_browser
def test_words_and_vectors_are_the_engines(page, tiny_folder):
    """float32 both, in another order of sums."""
    engine, masked = modernbert.load(tiny_folder), LONG + "a [MASK]"
    vectors = np.array(call(page, "embed", TEXTS))
    assert np.abs(vectors - engine.embed(TEXTS, normalize=True)).max() < 1e-4
    mine, theirs = call(page, "fillMask", masked, 3), engine.fill_mask(masked, 3)
    assert [word["score"] for word in mine] == pytest.approx([word["score"] for word in theirs], abs=1e-4)
    assert [word["token"] for word in mine] == [word["token"] for word in theirs]


@needs_browser
@pytest.mark.parametrize(("dtype", "device"), [("q8", "wasm"), ("q4", "wasm"), ("fp32", "webgpu"), ("q4", "webgpu")])
def test_the_browser_computes_what_onnx_runtime_does(page, site, tiny_folder, dtype, device):
    """From the same file, so the bits lost are the same. WebGPU, here Chromium's software adapter, is known for wrong values: within
    1e-3 it has none. In int8 the browser's products round otherwise (its sums are of 16 bits): a whole step is 8e-3."""
    if device == "webgpu" and not page.evaluate("async () => Boolean(await navigator.gpu?.requestAdapter())"):
        pytest.skip("this Chromium has no WebGPU")
    file = {"fp32": "model.onnx", "q8": "model_quantized.onnx", "q4": "model_q4.onnx"}[dtype]
    session, tokenizer = onnxruntime.InferenceSession(site / "vectors" / "onnx" / file), modernbert.load(tiny_folder).tokenizer
    for text, vector in zip(TEXTS, call(page, "embed", TEXTS, dtype=dtype, device=device), strict=True):
        ids = np.array(tokenizer.encode([text]), dtype=np.int64)
        (expected,) = session.run(["sentence_embedding"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        expected = expected[0] / np.linalg.norm(expected[0])
        assert np.abs(np.array(vector) - expected).max() < (1e-2 if dtype == "q8" else 1e-3)


@needs_browser
def test_search_orders_texts_as_the_engine_does(page, tiny_folder):
    engine, texts = modernbert.load(tiny_folder), ["Rome is in Italy.", "def add(a, b):", "Seven days make a week."]
    page.select_option("#dtype", "fp32")
    page.select_option("#device", "wasm")
    page.wait_for_function("document.body.dataset.state != 'working'")
    page.fill("#query", "A week has seven days.")
    page.fill("#texts", "\n".join(texts) + "\n\n")
    page.click("#search button")
    page.wait_for_function("document.body.dataset.state != 'working'")
    scores = engine.embed(texts, normalize=True) @ engine.embed("A week has seven days.", normalize=True)
    shown = page.locator("#ranked li").evaluate_all("lines => lines.map(line => line.firstChild.textContent)")
    assert shown == [texts[i] for i in np.argsort(-scores)]


@needs_browser
def test_a_text_without_a_mask_is_answered_by_a_message(page):
    page.fill("#masked", "no mask here")
    page.click("#fill button")
    page.wait_for_selector("body[data-state=failed]", timeout=60_000)
    assert "mask" in page.inner_text("#status").lower()


def test_the_page_says_which_models_lie_beside_it(tiny_folder, tmp_path):
    found = export_page(tiny_folder, tmp_path, forms=("int8",))
    assert [one.file for one in found] == ["words/model_quantized.onnx", "vectors/model_quantized.onnx"]
    assert json.loads((tmp_path / "page.json").read_text())["models"] == {"words": ["q8"], "vectors": ["q8"]}
    assert {"index.html", "app.js", "style.css", "package.json"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(("head", "sections"), [("sequence", ["labels", "vectors"]), ("token", ["vectors"])])
def test_a_page_has_a_part_for_the_heads_that_it_knows_and_the_command_says_where_it_only_searches(
    model_folder, tmp_path, head, sections
):
    said = CliRunner().invoke(main, ["export", str(model_folder(head)), str(tmp_path), "--page", "--form", "fp32"])
    assert said.exit_code == 0, said.output
    assert list(json.loads((tmp_path / "page.json").read_text())["models"]) == sections
    assert ("only searches" in said.output) == (sections == ["vectors"])


def test_a_model_whose_vectors_the_page_cannot_compare_is_refused(tmp_path, tiny_folder, monkeypatch):
    from modernbert.export import browser
    from modernbert.model.heads import LateInteraction

    monkeypatch.setattr(browser, "class_of", lambda folder: LateInteraction)
    with pytest.raises(CheckpointError, match="one pooled vector"):
        export_page(tiny_folder, tmp_path)
