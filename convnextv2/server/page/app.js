// The page of the server, which shows predictions or reconstructions of images.
// It has no dependencies, and sends requests only to its own server.

import { denseResult, denseSummary, question } from "./dense.js";

const $ = (id) => document.getElementById(id);
const MAX_SHOWN = 24;
const ALL_CLASSES_TO = 10; // if there are more classes, the five most probable are shown
let info = null; // the description of the chosen model's newest version
let files = []; // the last images, for the slider and for another model
// Counts the requests for models and reconstructions. A late answer to an older request is dropped.
let turn = 0;
// The values of the sliders of segmentors and detectors, and the results that depend on them.
const controls = { least: 0.5, opacity: 0.55 };
let followers = [];

const address = () => `v1/models/${encodeURIComponent($("model").value)}`;
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
const classCount = (count, kind = "") => `${count} ${kind}${count === 1 ? "class" : "classes"}`;

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

async function call(path, body) {
  const headers = body ? { "Content-Type": "application/octet-stream" } : {};
  if ($("api-key").value) headers.Authorization = `Bearer ${$("api-key").value}`;
  let response;
  try {
    response = await fetch(path, { method: body ? "POST" : "GET", body, headers });
  } catch {
    throw new Error("The server cannot be reached.");
  }
  // A proxy in front of the server may answer in another form.
  const answer = await response.json().catch(() => ({}));
  if (response.status === 401) $("key").hidden = false;
  if (response.ok) return answer;
  const message = answer.error?.message ?? `The server answered ${response.status}.`;
  throw new Error(message.replace(/^image 0: /, "")); // the page shows the file's name itself
}

// ---- the model ----

async function showModels() {
  try {
    const { models } = await call("v1/models");
    $("key").hidden = true;
    $("model").replaceChildren(
      ...models.map((name) => element("option", { value: name, textContent: name })),
    );
    $("choice").hidden = false;
    say("");
    await showModel();
  } catch (error) {
    say(error.message, true);
    if (!$("key").hidden) $("api-key").focus();
  }
}

async function showModel() {
  const mine = ++turn;
  info = null;
  clear();
  const { versions } = await call(address());
  if (mine !== turn) return;
  info = versions.at(-1);
  const pretrained = info.kind === "pre-trained";
  const size = `${info.image_size.join(" × ")} px`;
  const names = info.class_names;
  const what = {
    "pre-trained": "pre-trained, reconstructs at",
    multi_label: `any number of ${names.length} labels,`,
    classifier: `classifier, ${names.length} classes,`,
    segmentation: `assigns pixels to ${names.length} classes,`,
    detection: `finds objects of ${classCount(names.length)},`,
  };
  $("task").textContent = `${what[info.kind]} ${size}`;
  $("explained").textContent =
    info.kind === "multi_label"
      ? "the label that is furthest above its threshold"
      : "the first class";
  $("results").classList.toggle("reconstructed", pretrained);
  $("results").classList.toggle("detected", info.kind === "detection");
  $("results").classList.toggle("segmented", info.kind === "segmentation");
  const facts = [
    ["Version", info.version],
    ["Engine", info.engine],
    ["Image size", size],
    ["SHA-256", info.sha256],
  ];
  const { channels } = info.preprocessing;
  if (channels !== 1 && channels !== 3)
    facts.push([
      "Channels",
      `${channels}, of which ${channels > 2 ? "1 to 3 are shown, as RGB" : "1 is shown, as grey"}`,
    ]);
  if (names.length)
    facts.push([
      classCount(names.length),
      names.slice(0, 20).join(", ") + (names.length > 20 ? ", …" : ""),
    ]);
  for (const note of info.notes) {
    if (note.startsWith("Licence: ")) facts.push(["Licence", note.slice("Licence: ".length)]);
    // The note with the hash repeats facts that are shown already.
    else if (!note.includes(info.sha256.slice(0, 16))) facts.push(["Note", note]);
  }
  fill($("facts"), facts);
  const { real, accuracy, labels, pixels, objects, miou, ap, speed, made } = info.certificate;
  const proofs = [];
  if (pixels)
    proofs.push([
      "Agreement",
      `with PyTorch on ${percent(pixels.equal, 2)} of the pixels of ${pixels.images} images; ` +
        `outputs differ by at most ${real.max_difference.toPrecision(2)}`,
    ]);
  else if (objects)
    proofs.push([
      "Agreement",
      `with PyTorch on ${objects.found_by_both} of ${objects.objects} objects in ` +
        `${objects.images} images; boxes differ by at most ` +
        `${objects.largest_shift_px.toPrecision(2)} px`,
    ]);
  else if (real) {
    const agreed =
      real.labels_agreement === undefined
        ? `on ${percent(real.top1_agreement, 2)} of ${real.images} images`
        : `in ${percent(real.labels_agreement, 2)} of the labels of ${real.images} images (F1)`;
    proofs.push([
      "Agreement",
      `with PyTorch ${agreed}; ` +
        `outputs differ by at most ${real.max_difference.toPrecision(2)}`,
    ]);
  }
  if (accuracy)
    proofs.push([
      "Top-1",
      `${percent(accuracy.artifact_top1, 2)} (PyTorch ${percent(accuracy.pytorch_top1, 2)})`,
    ]);
  if (labels)
    proofs.push([
      "F1 of all labels",
      `${percent(labels.artifact_f1_micro, 2)} (PyTorch ${percent(labels.pytorch_f1_micro, 2)})`,
    ]);
  for (const [name, key, found] of [["mIoU", "miou", miou], ["AP", "ap", ap]])
    if (found && found[`artifact_${key}`] !== null)
      proofs.push([
        name,
        `${percent(found[`artifact_${key}`], 2)} (PyTorch ${percent(found[`pytorch_${key}`], 2)})`,
      ]);
  if (speed)
    proofs.push([
      "Speed",
      `${speed.artifact_images_per_second.toFixed(1)} images/s, ` +
        `${speed.ratio.toFixed(2)} times PyTorch, on ${speed.processor}`,
    ]);
  if (made) proofs.push(["Created", `${made.slice(0, 16).replace("T", " ")} UTC`]);
  fill($("certificate"), proofs);
  $("uncertified").hidden = proofs.length > 0;
  $("card").hidden = $("images").hidden = false;
}

function fill(where, facts) {
  where.replaceChildren(
    ...facts.flatMap(([name, value]) => [
      element("dt", { textContent: name }),
      element("dd", { textContent: value }),
    ]),
  );
}

function clear() {
  $("list").replaceChildren();
  $("results").hidden = true;
  followers = [];
}

// ---- images ----

async function take(given) {
  if (!info)
    return say(
      "No model is loaded, so images cannot be classified. " +
        "Choose a model above, or reload the page.",
      true,
    );
  const all = [...given];
  // Some systems know few types, so a file without a type may be an image.
  const images = all.filter((file) => file.type.startsWith("image/") || file.type === "");
  const others = all
    .filter((file) => !images.includes(file))
    .map((file) => `${file.name}: is not an image.`);
  if (!images.length) return say(others.join("\n") || "There are no files in this.", true);
  files = images;
  await (info.kind === "pre-trained" ? reconstruct() : predict(others));
}

const isDense = () => ["segmentation", "detection"].includes(info.kind);

async function predict(failures = []) {
  const mine = turn;
  const images = files.slice(0, MAX_SHOWN);
  const of =
    images.length < files.length ? ` of ${files.length}, the most that are shown` : "";
  const shown = info.class_names.length <= ALL_CLASSES_TO ? ALL_CLASSES_TO : 5;
  const asked = isDense()
    ? question(info.kind)
    : `predict?top_k=${shown}&explanation=true`;
  const next = $("list").firstChild; // new results come above the old ones, in their order
  let last = "";
  let done = 0;
  for (const file of images) {
    say(`Processing ${file.name} …`);
    try {
      const answer = await call(`${address()}/${asked}`, file);
      const made = await resultOf(file, answer.images[0]);
      if (mine !== turn) return;
      $("list").insertBefore(made, next?.isConnected ? next : null);
      $("results").hidden = false;
      last = `${file.name}: ${summaryOf(answer.images[0])}.`;
      done += 1;
    } catch (error) {
      if (mine !== turn) return;
      failures.push(`${file.name}: ${error.message}`);
    }
  }
  while ($("list").children.length > MAX_SHOWN) $("list").lastElementChild.remove();
  followers = followers.filter(({ article }) => article.isConnected);
  if (done !== 1) last = `${done} images ${isDense() ? "processed" : "classified"}${of}.`;
  say([...failures, ...(done ? [last] : [])].join("\n"), failures.length > 0);
}

// Shows a file with its aspect ratio set from the start. If the browser does not know the format,
// which the server may know, a sentence says so.
async function pictureOf(file) {
  const image = element("img", { alt: file.name, src: URL.createObjectURL(file) });
  const picture = element("div", { className: "picture" }, image);
  try {
    await image.decode();
    picture.style.setProperty("--aspect", image.naturalWidth / image.naturalHeight);
  } catch {
    image.replaceWith(
      element("p", {
        textContent: `${file.name}: this browser cannot show images of this format.`,
      }),
    );
    picture.classList.add("unseen"); // no shade can be drawn over it
  }
  URL.revokeObjectURL(image.src);
  return picture;
}

// Shows the classes that cannot be excluded, and whether the image is foreign, if the model has
// such an answer.
function unknownParts({ possible, foreign, foreignness }) {
  if (!possible) return [];
  const promise = `in ${percent(info.coverage)} of images, the right class is among these`;
  const names = possible.length ? possible.join(", ") : "none of the classes";
  const parts = [
    element("p", { className: "possible", textContent: `Possible: ${names} (${promise}).` }),
  ];
  if (foreign)
    parts.unshift(
      element("p", {
        className: "foreign",
        textContent:
          "Foreign: this image is unlike those that the model was fitted on " +
          `(${foreignness.toFixed(2)} times the limit).`,
      }),
    );
  return parts;
}

function summaryOf(answer) {
  if (isDense()) return denseSummary(answer, info.kind, controls.least);
  const { predictions, labels } = answer;
  if (!labels) return `${predictions[0].class}, ${percent(predictions[0].prob)}`;
  return labels.map(({ name }) => name).join(", ") || "no label";
}

async function resultOf(file, answer) {
  const picture = await pictureOf(file);
  if (isDense()) {
    const made = await denseResult(picture, file.name, answer, info.kind, controls);
    followers.push(made);
    return made.article;
  }
  picture.append(explanationOf(answer.explanation));
  const parts = answer.labels
    ? labelParts(answer)
    : [...classParts(answer.predictions), ...unknownParts(answer)];
  const right = element("div", {}, element("h3", { textContent: file.name }), ...parts);
  return element("article", {}, picture, right);
}

// Shows the name of a class with its probability, and a mark at its threshold if it has one.
function barOf(name, prob, threshold) {
  const length = element("span");
  length.style.width = `${100 * prob}%`;
  const bar = element("span", { className: "bar", ariaHidden: "true" }, length);
  if (threshold !== undefined) {
    const mark = element("i");
    mark.style.left = `${100 * threshold}%`;
    bar.append(mark);
  }
  const shown = element("span", { className: "prob", textContent: percent(prob) });
  if (threshold !== undefined)
    shown.append(
      element("span", { className: "spoken", textContent: `, threshold ${percent(threshold)}` }),
    );
  return element("li", {}, element("span", { className: "name", textContent: name }), bar, shown);
}

// Shows the labels that reach their thresholds. The other probabilities can be unfolded.
function labelParts({ labels, scores }) {
  const parts = [];
  if (labels.length)
    parts.push(
      element(
        "ol",
        { role: "list", ariaLabel: "Labels, the most probable first", className: "labels" },
        ...labels.map(({ name, score, threshold }) => barOf(name, score, threshold)),
      ),
    );
  else parts.push(element("p", { textContent: "No label reaches its threshold." }));
  const found = new Set(labels.map(({ name }) => name));
  const others = info.class_names
    .map((name, i) => [name, scores[name], info.thresholds[i]])
    .filter(([name]) => !found.has(name))
    .sort((one, other) => other[1] - one[1]);
  if (others.length)
    parts.push(
      element(
        "details",
        {},
        element("summary", {
          textContent: others.length > 1 ? `${others.length} other labels` : "1 other label",
        }),
        element(
          "ol",
          { role: "list", ariaLabel: "Labels below their thresholds", className: "below" },
          ...others.map((other) => barOf(...other)),
        ),
      ),
    );
  return parts;
}

function classParts(predictions) {
  const bars = element(
    "ol",
    { role: "list", ariaLabel: "Classes, the most probable first" },
    ...predictions.map(({ class: name, prob }) => barOf(name, prob)),
  );
  const others = info.class_names.length - predictions.length;
  const rest = Math.max(0, 1 - predictions.reduce((sum, { prob }) => sum + prob, 0));
  if (others <= 0) return [bars];
  const text = `${classCount(others, "other ")}: ${percent(rest)}`;
  return [bars, element("p", { className: "rest", textContent: text })];
}

// Draws the class activation map as a shade over the image. The region with the strongest support
// for the class has no shade, so that its colours are true.
function explanationOf({ map, seen }) {
  const canvas = element("canvas", {
    width: map[0].length,
    height: map.length,
    ariaHidden: "true",
  });
  const most = Math.max(...map.flat(), 1e-9);
  const context = canvas.getContext("2d");
  map.forEach((row, y) =>
    row.forEach((value, x) => {
      context.fillStyle = `rgba(10, 16, 20, ${0.75 * (1 - Math.max(0, value / most))})`;
      context.fillRect(x, y, 1, 1);
    }),
  );
  const [top, left, height, width] = seen.map((share) => `${100 * share}%`);
  Object.assign(canvas.style, { top, left, height, width });
  return canvas;
}

async function reconstruct() {
  const [file] = files;
  const mine = ++turn;
  const hidden = percent($("ratio").value / 100, 0);
  say(`Hiding ${hidden} of ${file.name} …`);
  try {
    const answer = await call(
      `${address()}/reconstruct?mask_ratio=${$("ratio").value / 100}`,
      file,
    );
    const whole = await pictureOf(file);
    if (mine !== turn) return;
    crop(whole, answer.seen);
    const picture = (png, alt) =>
      element(
        "div",
        { className: "picture" },
        element("img", { alt, src: `data:image/png;base64,${png}` }),
      );
    const figure = (title, shown) =>
      element("figure", {}, shown, element("figcaption", { textContent: title }));
    const figures = element(
      "div",
      { className: "triple" },
      figure("Image", whole),
      figure("Input", picture(answer.masked, `${file.name}, ${hidden} of it grey`)),
      figure(
        "Reconstruction",
        picture(answer.reconstruction, `${file.name}, its hidden part reconstructed by the model`),
      ),
    );
    for (const { style } of figures.querySelectorAll(".picture"))
      style.setProperty("--aspect", info.image_size[1] / info.image_size[0]);
    $("list").replaceChildren(
      element("article", {}, element("h3", { textContent: file.name }), figures),
    );
    $("results").hidden = false;
    say(
      `${file.name}: ${hidden} hidden.` +
        (files.length > 1 ? ` One image at a time: this is the first of ${files.length}.` : ""),
    );
  } catch (error) {
    if (mine === turn) say(`${file.name}: ${error.message}`, true);
  }
}

// Shows only the part of a picture that the network sees, to compare it with the reconstruction.
function crop(picture, [top, left, height, width]) {
  const image = picture.querySelector("img");
  if (!image) return;
  Object.assign(image.style, {
    position: "absolute",
    maxWidth: "none",
    width: `${100 / width}%`,
    height: `${100 / height}%`,
    left: `${(-100 * left) / width}%`,
    top: `${(-100 * top) / height}%`,
  });
}

$("model").onchange = async () => {
  try {
    say("");
    await showModel();
    if (info && files.length) await (info.kind === "pre-trained" ? reconstruct() : predict());
  } catch (error) {
    say(error.message, true);
  }
};
$("key").onsubmit = (event) => {
  event.preventDefault();
  showModels();
};
$("choose").onclick = () => $("file").click();
$("file").onchange = () => {
  take($("file").files);
  $("file").value = "";
};
$("look").onchange = () => $("results").classList.toggle("looking", $("look").checked);
for (const id of ["ratio", "least", "opacity"])
  $(id).oninput = () => {
    $(id).nextElementSibling.textContent = $(id).ariaValueText = `${$(id).value} %`;
    if (id === "ratio") return;
    controls[id] = $(id).value / 100;
    for (const { update } of followers) update();
  };
$("least").onchange = () => {
  const shown = followers.reduce((sum, { countShown }) => sum + countShown(), 0);
  say(`Score of at least ${$("least").value} %: ${shown === 1 ? "1 object" : `${shown} objects`}.`);
};
$("ratio").onchange = reconstruct;
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) take(event.clipboardData.files);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.toggle("over", event.dataTransfer.types.includes("Files"));
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  take(event.dataTransfer.files);
});

// ---- the camera ----

$("camera").onclick = async () => {
  $("camera").disabled = true;
  try {
    $("video").srcObject = await navigator.mediaDevices.getUserMedia({
      video: { facingMode: "environment" },
    });
    $("viewfinder").hidden = false;
    await $("video").play();
    $("shoot").focus();
  } catch {
    closeCamera();
    say(
      "The camera cannot be used here: there is none, access was denied, or the page was not " +
        "loaded over HTTPS or from this machine.",
      true,
    );
  }
};
function closeCamera() {
  $("video")
    .srcObject?.getTracks()
    .forEach((track) => track.stop());
  $("video").srcObject = null;
  $("viewfinder").hidden = true;
  $("camera").disabled = false;
  $("camera").focus();
}
$("stop").onclick = closeCamera;
$("shoot").onclick = () => {
  const { videoWidth: width, videoHeight: height } = $("video");
  const canvas = element("canvas", { width, height });
  canvas.getContext("2d").drawImage($("video"), 0, 0);
  closeCamera();
  canvas.toBlob(
    (blob) => take([new File([blob], "camera.jpg", { type: "image/jpeg" })]),
    "image/jpeg",
    0.92,
  );
};

showModels();
