// Shows the answer of a segmentor or a detector: colours and boxes over the picture, a legend in
// which classes can be switched off, and, for objects, a list as text.

const LONGEST_PX = 1024; // the longest side of the layer of colours, which is scaled to the picture
const MANY_BOXES = 40; // with more boxes, lines are thinner
const MAX_LABELS = 12; // with more boxes, only the chosen one is labelled

export const question = (kind) =>
  kind === "detection" ? "detect?masks=rle" : `segment?map=png&map_side=${LONGEST_PX}`;

const percent = (share) => `${(100 * share).toFixed(1)} %`;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// ---- layers: the index of the object or class of each pixel ----

// Returns the runs of COCO's compressed code. The first one is outside of the mask.
function runsOf(counts) {
  const runs = [];
  for (let at = 0; at < counts.length; ) {
    let value = 0;
    let shift = 0;
    let part;
    do {
      part = counts.charCodeAt(at++) - 48;
      value |= (part & 31) << shift;
      shift += 5;
    } while (part & 32);
    if (part & 16) value |= -1 << shift;
    runs.push(value + (runs.length > 2 ? runs.at(-2) : 0));
  }
  return runs;
}

function emptyLayer(width, height) {
  const scale = Math.min(1, LONGEST_PX / Math.max(width, height));
  const size = [width, height].map((side) => Math.max(1, Math.round(side * scale)));
  return { width: size[0], height: size[1], owner: new Int16Array(size[0] * size[1]).fill(-1) };
}

// Writes a mask into a layer. Masks are stored column by column.
function paint(layer, { size, counts }, owner) {
  const [height, width] = size;
  const [across, down] = [layer.width / width, layer.height / height];
  let at = 0;
  runsOf(counts).forEach((run, i) => {
    for (let end = at + run; i % 2 && at < end; ) {
      const column = Math.floor(at / height);
      const stop = Math.min(end, (column + 1) * height);
      const x = Math.min(layer.width - 1, Math.floor(column * across));
      const last = Math.ceil((stop - column * height) * down);
      for (let y = Math.floor((at - column * height) * down); y < last; y++)
        layer.owner[Math.min(layer.height - 1, y) * layer.width + x] = owner;
      at = stop;
    }
    if (i % 2 === 0) at += run;
  });
}

async function layerOfMap({ png }, classes) {
  const image = element("img", { src: `data:image/png;base64,${png}` });
  await image.decode();
  const { naturalWidth: width, naturalHeight: height } = image;
  const context = element("canvas", { width, height }).getContext("2d");
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const known = new Map(classes.map(({ colour }, i) => [parseInt(colour.slice(1), 16), i]));
  const owner = new Int16Array(width * height);
  for (let i = 0; i < owner.length; i++)
    owner[i] = known.get((data[4 * i] << 16) | (data[4 * i + 1] << 8) | data[4 * i + 2]) ?? -1;
  return { width, height, owner };
}

// Returns a layer as a canvas. `alphaOf` returns the opacity of an owner, from 0 to 255.
function coloured({ width, height, owner }, colourOf, alphaOf) {
  const canvas = element("canvas", { width, height });
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer); // alpha, blue, green, red
  const values = new Map();
  for (let i = 0; i < owner.length; i++) {
    const one = owner[i];
    if (one < 0) continue;
    let value = values.get(one);
    if (value === undefined) {
      const rgb = parseInt(colourOf(one).slice(1), 16);
      const blueFirst = ((rgb & 255) << 16) | (rgb & 0xff00) | (rgb >> 16);
      values.set(one, (value = ((alphaOf(one) << 24) | blueFirst) >>> 0));
    }
    pixels[i] = value;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// ---- one image ----

// Builds a result. `controls` are the sliders of all results: { least, opacity }, from 0 to 1.
export async function denseResult(picture, title, answer, kind, controls) {
  const { width, height, classes } = answer;
  const isDetection = kind === "detection";
  const objects = isDetection ? answer.objects : [];
  const colours = new Map(classes.map(({ class: name, colour }) => [name, colour]));
  const hidden = new Set();
  let chosen = -1; // the object that is emphasised
  let drawn = 0; // the id of the animation frame that was requested
  const hasMasks = objects.some(({ mask }) => mask);
  const map = isDetection ? null : await layerOfMap(answer.map, classes);

  picture.style.setProperty("--aspect", width / height);
  const canvas = element("canvas", { ariaHidden: "true" });
  picture.append(canvas);

  const isShown = ({ class: name, score }) => score >= controls.least && !hidden.has(name);

  function draw() {
    drawn = 0;
    const box = picture.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(box.width * ratio));
    canvas.height = Math.max(1, Math.round(box.height * ratio));
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    if (map) {
      const alpha = Math.round(255 * controls.opacity);
      const alphaOf = (i) => (hidden.has(classes[i].class) ? 0 : alpha);
      const shade = coloured(map, (i) => classes[i].colour, alphaOf);
      context.drawImage(shade, 0, 0, canvas.width, canvas.height);
      return;
    }
    const shown = objects.filter(isShown);
    if (hasMasks) {
      const layer = emptyLayer(width, height);
      for (const object of shown.toReversed())
        if (object.mask) paint(layer, object.mask, objects.indexOf(object));
      if (chosen >= 0 && isShown(objects[chosen]) && objects[chosen].mask)
        paint(layer, objects[chosen].mask, chosen);
      const colourOf = (i) => colours.get(objects[i].class);
      const shade = coloured(layer, colourOf, (i) => (i === chosen ? 190 : 110));
      context.drawImage(shade, 0, 0, canvas.width, canvas.height);
    }
    const [across, down] = [canvas.width / width, canvas.height / height];
    const thin = shown.length > MANY_BOXES ? ratio / 2 : ratio;
    for (const object of shown.toReversed()) drawBox(context, object, across, down, thin, false);
    if (shown.length <= MAX_LABELS)
      for (const object of shown.toReversed()) drawName(context, object, across, down, ratio);
    if (chosen >= 0 && isShown(objects[chosen])) {
      drawBox(context, objects[chosen], across, down, ratio, true);
      drawName(context, objects[chosen], across, down, ratio);
    }
  }

  function drawBox(context, { class: name, box }, across, down, ratio, isChosen) {
    const [x0, y0, x1, y1] = box;
    const place = [x0 * across, y0 * down, (x1 - x0) * across, (y1 - y0) * down];
    context.lineWidth = (isChosen ? 6 : 4) * ratio;
    context.strokeStyle = "rgba(0, 0, 0, 0.55)"; // so that the line is visible on every picture
    context.strokeRect(...place);
    context.lineWidth = (isChosen ? 3.5 : 2) * ratio;
    context.strokeStyle = isChosen ? "#ffffff" : colours.get(name);
    context.strokeRect(...place);
  }

  function drawName(context, { class: name, score, box }, across, down, ratio) {
    context.font = `${13 * ratio}px system-ui, sans-serif`;
    const text = `${name} ${percent(score)}`;
    const wide = context.measureText(text).width + 8 * ratio;
    const high = 18 * ratio;
    const x = Math.max(0, Math.min(box[0] * across, canvas.width - wide));
    const above = box[1] * down - high;
    const y = above >= 0 ? above : box[1] * down;
    context.fillStyle = "rgba(10, 16, 20, 0.85)";
    context.fillRect(x, y, wide, high);
    context.fillStyle = "#ffffff";
    context.textBaseline = "middle";
    context.fillText(text, x + 4 * ratio, y + high / 2);
  }

  // ---- the legend ----

  const figures = new Map();
  const rows = classes.map(({ class: name, colour, share }) => {
    const box = element("input", { type: "checkbox", checked: true });
    box.onchange = () => {
      if (box.checked) hidden.delete(name);
      else hidden.add(name);
      update();
    };
    const swatch = element("span", { className: "swatch", ariaHidden: "true" });
    swatch.style.background = colour;
    const figure = element("span", {
      className: "prob",
      textContent: isDetection ? "" : percent(share),
    });
    figures.set(name, figure);
    return element("label", {}, box, swatch, element("span", { textContent: name }), figure);
  });
  const legend = element(
    "fieldset",
    { className: "classes" },
    element("legend", { textContent: isDetection ? "Classes and counts" : "Classes and shares" }),
    ...rows,
  );

  // ---- the list of objects ----

  const list = element("ul", {
    className: "objects",
    role: "listbox",
    tabIndex: 0,
    ariaLabel: "Objects, the most certain first",
  });
  const prefix = `object-${Math.random().toString(36).slice(2)}`;
  const items = objects.map(({ class: name, score, box }, i) => {
    const [x0, y0, x1, y1] = box.map(Math.round);
    const swatch = element("span", { className: "swatch", ariaHidden: "true" });
    swatch.style.background = colours.get(name);
    const item = element(
      "li",
      { role: "option", id: `${prefix}-${i}`, ariaSelected: "false" },
      swatch,
      element("span", { className: "name", textContent: name }),
      element("span", { className: "prob", textContent: percent(score) }),
      element("span", {
        className: "place",
        textContent: `${x1 - x0} × ${y1 - y0} px at x ${x0}, y ${y0}`,
      }),
    );
    item.onclick = () => choose(i);
    item.onpointerenter = (event) => event.pointerType === "mouse" && choose(i, false);
    return item;
  });
  list.append(...items);
  const empty = element("p", { className: "rest", textContent: "No object reaches this score." });

  function choose(i, scrolls = true) {
    if (i === chosen) return;
    if (chosen >= 0) items[chosen].ariaSelected = "false";
    chosen = i;
    if (i >= 0) {
      items[i].ariaSelected = "true";
      list.setAttribute("aria-activedescendant", items[i].id);
      if (scrolls) items[i].scrollIntoView({ block: "nearest" });
    } else list.removeAttribute("aria-activedescendant");
    redraw();
  }

  list.onkeydown = (event) => {
    const shown = objects.map((_, i) => i).filter((i) => isShown(objects[i]));
    if (!shown.length) return;
    const at = shown.indexOf(chosen);
    const last = shown.length - 1;
    const goals = { ArrowDown: at + 1, ArrowUp: at < 0 ? 0 : at - 1, Home: 0, End: last };
    if (event.key === "Escape") choose(-1);
    else if (event.key in goals)
      choose(shown[Math.max(0, Math.min(last, goals[event.key]))]);
    else return;
    event.preventDefault();
  };
  list.onpointerleave = () => document.activeElement === list || choose(-1);

  // A click on the picture chooses the smallest box at that point.
  picture.onclick = (event) => {
    const { left, top, width: wide, height: high } = picture.getBoundingClientRect();
    const x = ((event.clientX - left) / wide) * width;
    const y = ((event.clientY - top) / high) * height;
    const area = ([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0);
    const hits = objects
      .map((object, i) => [object, i])
      .filter(([object]) => isShown(object))
      .filter(([{ box }]) => box[0] <= x && x <= box[2] && box[1] <= y && y <= box[3])
      .sort(([one], [other]) => area(one.box) - area(other.box));
    choose(hits.length ? hits[0][1] : -1);
  };

  function redraw() {
    drawn ||= requestAnimationFrame(draw);
  }

  // Shows the objects and classes that the sliders and the legend select.
  function update() {
    const counts = new Map(classes.map(({ class: name }) => [name, 0]));
    let shown = 0;
    objects.forEach((object, i) => {
      const { class: name, score } = object;
      if (score >= controls.least) counts.set(name, counts.get(name) + 1);
      items[i].hidden = !isShown(object);
      shown += !items[i].hidden;
    });
    if (isDetection) {
      for (const [name, figure] of figures) figure.textContent = counts.get(name);
      if (chosen >= 0 && items[chosen].hidden) choose(-1);
      list.hidden = !shown;
      empty.hidden = shown > 0;
    }
    redraw();
  }

  new ResizeObserver(redraw).observe(picture);
  const parts = [element("h3", { textContent: title }), legend];
  if (isDetection) parts.push(list, empty);
  const article = element("article", { className: "dense" }, picture, element("div", {}, ...parts));
  update();
  return { article, update, countShown: () => objects.filter(isShown).length };
}

// Returns a sentence about one image, for the status line.
export function denseSummary({ objects, classes }, kind, least) {
  if (kind !== "detection") {
    const shares = classes.slice(0, 3).map(({ class: name, share }) => `${name} ${percent(share)}`);
    return shares.join(", ") + (classes.length > 3 ? ", …" : "");
  }
  const found = objects.filter(({ score }) => score >= least);
  const counts = new Map();
  for (const { class: name } of found) counts.set(name, (counts.get(name) ?? 0) + 1);
  const parts = [...counts].sort((one, other) => other[1] - one[1]);
  const total = found.length === 1 ? "1 object" : `${found.length} objects`;
  if (!found.length) return `no object with a score of at least ${Math.round(100 * least)} %`;
  return `${total} (${parts.map(([name, count]) => `${count} ${name}`).join(", ")})`;
}
