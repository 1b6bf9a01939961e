// Fills masks, names classes, embeds and searches with the models beside this page: words/ (masked LM), labels/ (classifier) and
// vectors/ (encoder), as `modernbert export --page` wrote them. transformers.js and its WebAssembly come from node_modules beside it; nothing is fetched from anywhere else.

import { env, pipeline } from "./node_modules/@huggingface/transformers/dist/transformers.min.js";

env.allowRemoteModels = false;
env.allowLocalModels = true;
env.localModelPath = "./";
env.useBrowserCache = false;
env.backends.onnx.wasm.wasmPaths = new URL("node_modules/onnxruntime-web/dist/", location.href).href;

const NAMES = { fp32: "32 bits", fp16: "16 bits", q8: "8 bits", q4: "4 bits", q4f16: "4 bits, 16 between" };
const TASKS = { words: "fill-mask", labels: "text-classification", vectors: "feature-extraction" };

const element = (id) => document.getElementById(id);
const { models, pooling, prompts } = await (await fetch("page.json")).json(); // { words: ["fp32", "q8", …], vectors: […] }
const loaded = {};

/** The model of a section with the chosen weights on the chosen device, loaded once. */
function model(section) {
  const options = { dtype: element("dtype").value, device: element("device").value };
  const key = [section, ...Object.values(options)].join();
  loaded[key] ??= pipeline(TASKS[section], section, options).catch((error) => {
    delete loaded[key];
    throw error;
  });
  return loaded[key];
}

/** The likeliest words at the mask of a text: [{ token_str, score, sequence }]. */
export async function fillMask(text, topK = 5) {
  const fill = await model("words");
  return fill(text, { top_k: topK });
}

/** The classes of a text, likeliest first: [{ label, score }]. */
export async function classify(text) {
  const name = await model("labels");
  return name(text, { top_k: null });
}

/** One vector of length 1 a text: [[…], …]. */
export async function embed(texts) {
  const extract = await model("vectors");
  const rows = [];
  for (const text of texts) rows.push((await extract(text, { pooling, normalize: true })).tolist()[0]); // alone: no padding
  return rows;
}

/** The texts with their similarity to a query, best first: [{ text, score }]. */
export async function search(query, texts) {
  const [asked] = await embed([(prompts.query ?? "") + query]);
  const vectors = await embed(texts.map((text) => (prompts.document ?? "") + text));
  const score = (vector) => vector.reduce((sum, x, i) => sum + x * asked[i], 0);
  return texts.map((text, i) => ({ text, score: score(vectors[i]) })).sort((a, b) => b.score - a.score);
}

function show(list, items) {
  const most = Math.max(...items.map((item) => item.score), 1e-9);
  list.replaceChildren(
    ...items.map(({ text, score }) => {
      const line = document.createElement("li");
      const figure = document.createElement("span");
      line.style.setProperty("--share", `${Math.max(0, (100 * score) / most)}%`);
      figure.textContent = score.toFixed(3);
      line.append(text, figure);
      return line;
    }),
  );
}

/** Runs what a button asks for; says how long it took, or what went wrong. */
async function run(doing) {
  const status = element("status");
  status.className = "";
  status.textContent = "working …";
  document.body.dataset.state = "working";
  const start = performance.now();
  try {
    await doing();
    status.textContent = `${Math.round(performance.now() - start)} ms`;
    document.body.dataset.state = "ready";
  } catch (error) {
    status.textContent = error.message;
    status.className = "failed";
    document.body.dataset.state = "failed";
  }
}

const fill = () =>
  run(async () => {
    const found = await fillMask(element("masked").value);
    show(element("found"), found.map(({ token_str, score }) => ({ text: token_str.trim() || JSON.stringify(token_str), score })));
  });

const label = () =>
  run(async () => {
    const found = await classify(element("labelled").value);
    show(element("classes"), found.map(({ label, score }) => ({ text: label, score })));
  });

const rank = () =>
  run(async () => {
    const texts = element("texts").value.split("\n").filter((line) => line.trim());
    show(element("ranked"), await search(element("query").value, texts));
  });

const actions = { fill: ["words", fill], classify: ["labels", label], search: ["vectors", rank] };
const shown = Object.entries(actions).filter(([, [section]]) => section in models);
const [[, [, first]]] = shown;
const forms = new Set(Object.values(models).flat());
element("dtype").replaceChildren(...[...forms].map((form) => new Option(NAMES[form], form)));
if (!navigator.gpu) element("device").querySelector('[value="webgpu"]').disabled = true;

for (const [form, [section, action]] of shown) {
  element(section).hidden = false;
  element(form).addEventListener("submit", (event) => {
    event.preventDefault();
    action();
  });
}
for (const id of ["dtype", "device"]) element(id).addEventListener("change", first);
await first();
