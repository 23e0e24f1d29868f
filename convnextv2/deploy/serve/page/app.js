// The page of the server: images in, predictions or reconstructions out. No dependencies, no requests but to its own server.

const $ = (id) => document.getElementById(id);
const MOST_SHOWN = 24;
let info = null; // of the chosen model's newest version
let lastFile = null; // for the slider

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

async function call(path, options = {}) {
  const headers = { ...options.headers };
  if ($("api-key").value) headers.Authorization = `Bearer ${$("api-key").value}`;
  const response = await fetch(path, { ...options, headers });
  const body = await response.json();
  if (response.status === 401) $("key").hidden = false;
  if (!response.ok) throw new Error(body.error?.message ?? `The server answered ${response.status}.`);
  return body;
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const address = () => `v1/models/${encodeURIComponent($("model").value)}`;

async function showModels() {
  try {
    const { models } = await call("v1/models");
    $("model").replaceChildren(...models.map((name) => element("option", { value: name, textContent: name })));
    await showCard();
    say("");
  } catch (error) {
    say(error.message, true);
  }
}

async function showCard() {
  const found = await call(address());
  info = found.versions.at(-1);
  const percent = (share) => `${(100 * share).toFixed(2)} %`;
  const facts = [
    ["Version", info.version],
    ["Engine", info.engine],
    ["Image size", info.image_size.join(" × ") + " px"],
    ["SHA-256", info.sha256],
  ];
  if (info.class_names.length) facts.push(["Classes", `${info.class_names.length}: ${info.class_names.slice(0, 12).join(", ")}${info.class_names.length > 12 ? ", …" : ""}`]);
  const { real, accuracy, speed, made } = info.certificate;
  if (real) facts.push(["Agrees with PyTorch", `${percent(real.top1_agreement)} of ${real.images} images, largest difference ${real.max_difference.toPrecision(2)}`]);
  if (accuracy) facts.push(["Top-1", `${percent(accuracy.artifact_top1)} (PyTorch ${percent(accuracy.pytorch_top1)})`]);
  if (speed) facts.push(["Pace when exported", `${speed.artifact_images_per_second.toFixed(1)} images/s (${speed.ratio.toFixed(2)} times PyTorch), ${speed.processor}`]);
  if (made) facts.push(["Certified", made]);
  for (const note of info.notes) facts.push(["Note", note]);
  $("facts").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", { textContent: name }), element("dd", { textContent: value })]));
  $("slider").hidden = info.kind !== "pre-trained";
}

async function take(files) {
  const images = [...files].filter((file) => file.type.startsWith("image/") || file.type === "");
  if (!images.length) return say("That is no image.", true);
  if (info?.kind === "pre-trained") {
    lastFile = images[0];
    return reconstruct();
  }
  for (const file of images) await classify(file);
}

async function classify(file) {
  say(`Looking at ${file.name} …`);
  try {
    const answer = await call(`${address()}/predict?top_k=5&explanation=true`, {
      method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: file,
    });
    const [found] = answer.images;
    $("results").prepend(await resultOf(file, found));
    while ($("results").children.length > MOST_SHOWN) $("results").lastElementChild.remove();
    const [best] = found.predictions;
    say(`${file.name}: ${best.class}, ${(100 * best.prob).toFixed(1)} %.`);
  } catch (error) {
    say(`${file.name}: ${error.message}`, true);
  }
}

async function resultOf(file, found) {
  const picture = element("div", { className: "picture" });
  const image = element("img", { alt: file.name, src: URL.createObjectURL(file) });
  picture.append(image);
  image.onload = () => URL.revokeObjectURL(image.src);
  const map = explanationOf(found.explanation);
  const box = element("input", { type: "checkbox" });
  box.onchange = () => (box.checked ? picture.append(map) : map.remove());
  const list = element("ol", { ariaLabel: "Most probable classes" });
  for (const { class: name, prob } of found.predictions) {
    const fill = element("span");
    fill.style.width = `${100 * prob}%`;
    const bar = element("div", { className: "bar" }, fill);
    bar.setAttribute("aria-hidden", "true");
    list.append(element("li", {}, element("span", { className: "name", textContent: name }),
      element("span", { className: "prob", textContent: `${(100 * prob).toFixed(1)} %` }), bar));
  }
  const left = element("div", {}, picture, element("label", { className: "toggle" }, box, "Show what it looked at"));
  return element("article", { className: "result" }, left, element("div", {}, element("h2", { textContent: file.name }), list));
}

// The class activation map over what the network saw of the image: what speaks for the class in orange, nothing where it does not.
function explanationOf({ map, seen }) {
  const canvas = element("canvas", { width: map[0].length, height: map.length });
  canvas.setAttribute("aria-hidden", "true");
  const most = Math.max(...map.flat(), 1e-9);
  const context = canvas.getContext("2d");
  map.forEach((row, y) => row.forEach((value, x) => {
    context.fillStyle = `rgba(255, 120, 0, ${Math.max(0, value / most)})`;
    context.fillRect(x, y, 1, 1);
  }));
  const [top, left, height, width] = seen.map((share) => `${100 * share}%`);
  Object.assign(canvas.style, { top, left, height, width });
  return canvas;
}

async function reconstruct() {
  const file = lastFile;
  if (!file) return;
  const ratio = $("ratio").value / 100;
  say(`Hiding ${$("ratio").value} % of ${file.name} …`);
  try {
    const answer = await call(`${address()}/reconstruct?mask_ratio=${ratio}`, {
      method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: file,
    });
    const shown = [["Image", URL.createObjectURL(file)], ["What it sees", `data:image/png;base64,${answer.masked}`],
      ["Reconstruction", `data:image/png;base64,${answer.reconstruction}`]];
    const figures = shown.map(([title, src]) => element("figure", {}, element("img", { src, alt: title }), element("figcaption", { textContent: title })));
    $("results").replaceChildren(element("article", { className: "result" }, element("div", { className: "triple" }, ...figures)));
    say(`${file.name}, ${$("ratio").value} % hidden.`);
  } catch (error) {
    say(`${file.name}: ${error.message}`, true);
  }
}

$("model").onchange = () => { $("results").replaceChildren(); lastFile = null; showCard().catch((error) => say(error.message, true)); };
$("file").onchange = () => { take($("file").files); $("file").value = ""; };
$("api-key").onchange = showModels;
$("ratio").oninput = () => { $("percent").textContent = `${$("ratio").value} %`; };
$("ratio").onchange = reconstruct;
document.addEventListener("paste", (event) => { if (event.clipboardData.files.length) take(event.clipboardData.files); });
document.addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").classList.remove("over"); });
document.addEventListener("drop", (event) => { event.preventDefault(); $("drop").classList.remove("over"); take(event.dataTransfer.files); });

function closeCamera() {
  $("video").srcObject?.getTracks().forEach((track) => track.stop());
  $("video").srcObject = null;
  $("viewfinder").hidden = true;
}
$("camera").onclick = async () => {
  try {
    $("video").srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    $("viewfinder").hidden = false;
    await $("video").play();
    $("shoot").focus();
  } catch {
    say("The camera cannot be used here: there is none, it was refused, or the page did not come by HTTPS or from this machine.", true);
  }
};
$("stop").onclick = closeCamera;
$("shoot").onclick = () => {
  const { videoWidth: width, videoHeight: height } = $("video");
  const canvas = element("canvas", { width, height });
  canvas.getContext("2d").drawImage($("video"), 0, 0);
  closeCamera();
  canvas.toBlob((blob) => take([new File([blob], "camera.jpg", { type: "image/jpeg" })]), "image/jpeg", 0.92);
};

showModels();
