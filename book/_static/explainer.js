// A classifier whose 8-bit weights are read at low voltage, computed in the page.  Plain JavaScript;
// Node takes what computes from here for tests (tests/test_explainer.py).
(function (api) {
  "use strict";

  // ----------------------------------------------------------------------------------------------------- computing

  function bytes(text) {
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  }

  /** A network as the notebook exports it, unpacked: its steps in order; its layers, the steps that have weights. */
  function unpack(network) {
    let start = 0;
    const steps = network.map((step) => {
      if (step.kind !== "conv") return step;
      const codes = new Int8Array(bytes(step.codes).buffer), first = start;
      start += codes.length;
      const [gain, bias] = [step.gain, step.bias].map((text) => new Float32Array(bytes(text).buffer));
      return { ...step, codes, read: codes.slice(), gain, bias, start: first };
    });
    return { steps, layers: steps.filter((step) => step.kind === "conv"), weights: start };
  }

  function mixed(x) { // the finaliser of MurmurHash3, on 32 bits
    x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
    x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
    return (x ^ (x >>> 16)) >>> 0;
  }

  /** A chip's cells that fail at bit-error rate `most`, ascending; a cell fails at rates above its mark / 2**32. */
  function chip(number, weights, most) {
    const key = mixed(number + 0x9e3779b9), limit = most * 2 ** 32, cells = [], marks = [];
    for (let cell = 0; cell < 8 * weights; cell++) {
      const mark = mixed(mixed(cell) ^ key);
      if (mark < limit) cells.push(cell), marks.push(mark);
    }
    return { cells: Uint32Array.from(cells), marks: Uint32Array.from(marks) };
  }

  /** Fill every layer's `read` with its codes as the chip gives them back; count flipped bits and changed weights. */
  function readBack(network, { cells, marks }, ber) {
    const limit = ber * 2 ** 32;
    let bits = 0, changed = 0, last = -1, k = 0;
    for (const layer of network.layers) {
      const end = 8 * (layer.start + layer.codes.length);
      layer.read.set(layer.codes);
      for (; k < cells.length && cells[k] < end; k++) {
        if (marks[k] >= limit) continue;
        const weight = cells[k] >>> 3;
        layer.read[weight - layer.start] ^= 1 << (cells[k] & 7);
        bits++;
        if (weight !== last) changed++;
        last = weight;
      }
    }
    return { bits, changed };
  }

  const ACTIVATIONS = { none: (x) => x, relu: (x) => (x > 0 ? x : 0), tanh: Math.tanh };

  /** A convolution of odd kernel, stride 1, zero border; then gain and bias a channel (batch norm) and activation. */
  function convolved(map, side, layer, codes) {
    const { kernel, inputs, outputs } = layer, pad = kernel >> 1, wide = side + 2 * pad, area = side * side;
    const padded = new Float32Array(inputs * wide * wide), out = new Float32Array(outputs * area);
    for (let row = 0; row < inputs * side; row++) {
      const channel = Math.floor(row / side), place = (channel * wide + (row % side) + pad) * wide + pad;
      padded.set(map.subarray(row * side, (row + 1) * side), place);
    }
    const sums = new Float64Array(area), activation = ACTIVATIONS[layer.activation];
    let weight = 0;
    for (let o = 0; o < outputs; o++) {
      sums.fill(0);
      for (let c = 0; c < inputs; c++) {
        for (let tap = 0; tap < kernel * kernel; tap++) {
          const code = codes[weight++];
          if (code === 0) continue;
          let from = (c * wide + Math.floor(tap / kernel)) * wide + (tap % kernel);
          for (let to = 0; to < area; from += 2 * pad) {
            for (const end = to + side; to < end; ) sums[to++] += code * padded[from++];
          }
        }
      }
      const gain = layer.scale * layer.gain[o];
      for (let i = 0; i < area; i++) out[o * area + i] = activation(sums[i] * gain + layer.bias[o]);
    }
    return out;
  }

  /** Maps of half the side, of the largest of each four values (pool), or of twice the side, of the nearest (up). */
  function resized(map, side, kind) {
    const to = kind === "pool" ? side / 2 : 2 * side, channels = map.length / (side * side);
    const out = new Float32Array(channels * to * to);
    for (let k = 0; k < out.length; k++) {
      const y = Math.floor(k / to) % to, x = k % to, c = Math.floor(k / (to * to)) * side * side;
      if (kind === "up") out[k] = map[c + (y >> 1) * side + (x >> 1)];
      else {
        const at = c + 2 * y * side + 2 * x;
        out[k] = Math.max(map[at], map[at + 1], map[at + side], map[at + side + 1]);
      }
    }
    return out;
  }

  /** What a network makes of an image (3 maps, values in [-1, 1]); faulty: with the codes as they were last read. */
  function forward(network, image, faulty) {
    let map = image, side = Math.sqrt(image.length / 3);
    for (const step of network.steps) {
      if (step.kind === "conv") map = convolved(map, side, step, faulty ? step.read : step.codes);
      else {
        map = resized(map, side, step.kind);
        side = step.kind === "pool" ? side / 2 : 2 * side;
      }
    }
    return map;
  }

  function probabilities(logits) {
    const most = Math.max(...logits), powers = Array.from(logits, (x) => Math.exp(x - most));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((x) => x / sum);
  }

  /** Pixels (uint8) of image `k` as the networks see them. */
  function image(page, k) {
    const pixels = bytes(page.images[k]);
    return Float32Array.from(pixels, (x) => (x * 2) / 255 - 1);
  }

  function transformed(pixels, change) {
    return pixels.map((x, i) => Math.min(1, Math.max(-1, x + change[i])));
  }

  /** As nflib/energy.py: the voltage over the nominal one, and the energy of a read over that at nominal voltage. */
  function voltage({ safe, low_ber, low_voltage }, ber) {
    return ber <= safe ? 1 : 1 - ((1 - low_voltage) * Math.log(ber / safe)) / Math.log(low_ber / safe);
  }
  function readEnergy(curve, ber) {
    return voltage(curve, ber) ** (Math.log(curve.ratio) / Math.log(curve.low_voltage));
  }

  /** The stored measurements of an error model at the rate nearest to `ber`, by system. */
  function nearest(records, errorModel, ber) {
    const rows = records.filter((row) => row.error_model === errorModel);
    const away = (row) => Math.abs(Math.log(row.rate / ber)), least = Math.min(...rows.map(away));
    return Object.fromEntries(rows.filter((row) => away(row) === least).map((row) => [row.system, row]));
  }

  Object.assign(api, { unpack, chip, readBack, forward, image, transformed, voltage, readEnergy, nearest });
  if (typeof document === "undefined") return;

  // ------------------------------------------------------------------------------------------------------- showing

  const page = JSON.parse(document.getElementById("explainer-data").textContent), curve = page.curve;
  const base = unpack(page.base), generator = unpack(page.generator);
  const MOST = 0.02, STEPS = 40; // of the slider: to 2 %, steps a decade
  const LAST = Math.floor(STEPS * Math.log10(MOST / curve.safe)), SHOWN = 16;
  const state = { ber: page.rate, chip: page.chip, image: page.image, layer: 0 };
  const percent = (x) => `${Number((100 * x).toPrecision(3))} %`, tenths = (x) => `${(100 * x).toFixed(1)} %`;
  const signed = (x) => `${x < 0 ? "−" : "+"}${Math.abs(x)}`;
  const root = document.getElementById("explainer"), find = (name) => root.querySelector(`[data-of="${name}"]`);
  let memory, drawn, changes = {}, waiting;

  root.innerHTML = `
    <div class="explainer-controls">
      <label for="explainer-voltage">Voltage <span data-of="voltage"></span></label>
      <input id="explainer-voltage" type="range" min="0" max="${LAST}" step="1">
      <div class="explainer-row"><label for="explainer-chip">Chip</label>
        <input id="explainer-chip" type="number" min="0" max="999999" step="1">
        <button type="button" data-of="other">Another chip</button></div>
      <p class="explainer-said" aria-live="polite" data-of="said"></p>
    </div>
    <dl class="explainer-numbers" data-of="numbers"></dl>
    <section aria-labelledby="explainer-h1"><h3 id="explainer-h1">The weights</h3>
      <div class="explainer-row"><label for="explainer-layer">Layer</label> <select id="explainer-layer"></select></div>
      <div class="explainer-two"><figure data-of="histogram"></figure><div data-of="bits"></div></div></section>
    <section aria-labelledby="explainer-h2"><h3 id="explainer-h2">An image</h3>
      <div class="explainer-thumbs" role="radiogroup" aria-label="Test image" data-of="thumbs"></div>
      <div class="explainer-images" data-of="images"></div>
      <div class="explainer-two" data-of="answers"></div></section>
    <section aria-labelledby="explainer-h3"><h3 id="explainer-h3">All test images</h3>
      <figure data-of="accuracy"></figure><p data-of="records"></p></section>`;
  const control = (name) => document.getElementById(`explainer-${name}`), count = (n) => n.toLocaleString("en");
  const [slider, number, select] = ["voltage", "chip", "layer"].map(control);
  select.innerHTML = base.layers
    .map(({ name, codes }, k) => `<option value="${k}">${name}, ${count(codes.length)} weights</option>`)
    .join("");

  function paint(canvas, pixels) { // values in [-1, 1], three planes
    const side = Math.sqrt(pixels.length / 3), area = side * side, context = canvas.getContext("2d");
    const data = new ImageData(side, side);
    canvas.width = canvas.height = side;
    const byte = (i) => (i % 4 === 3 ? 255 : 127.5 * (1 + pixels[(i % 4) * area + (i >> 2)]));
    for (let i = 0; i < 4 * area; i++) data.data[i] = byte(i);
    context.putImageData(data, 0, 0);
  }
  const seen = page.images.map((_, k) => image(page, k));
  const canvas = (name) => `<canvas role="img" aria-label="${name}"></canvas>`;
  find("thumbs").innerHTML = page.labels
    .map((label, k) => [k, canvas(page.classes[label])])
    .map(([k, shown]) => `<label><input type="radio" name="explainer-image" value="${k}">${shown}</label>`)
    .join("");
  find("thumbs").querySelectorAll("canvas").forEach((canvas, k) => paint(canvas, seen[k]));
  find("images").innerHTML = ["image", "perturbation", "transformed image"]
    .map((name) => `<figure>${canvas(name)}<figcaption>${name}</figcaption></figure>`)
    .join("");

  const chart = (inside, height, words) =>
    `<svg viewBox="0 0 360 ${height}" role="img" aria-label="${words}">${inside}</svg>`;
  const text = (x, y, words, anchor = "middle") => `<text x="${x}" y="${y}" text-anchor="${anchor}">${words}</text>`;

  function histogram(layer) {
    const bins = (codes) => {
      const counts = new Array(64).fill(0);
      for (const code of codes) counts[(code + 128) >> 2]++;
      return counts;
    };
    const [stored, read] = [bins(layer.codes), bins(layer.read)], tall = Math.log10(Math.max(...stored, ...read) + 1);
    const height = (count) => 130 - (120 * Math.log10(count + 1)) / tall;
    const line = (counts) => counts.map((n, k) => `${k ? "L" : "M"}${20 + 5 * k} ${height(n).toFixed(1)}h5`).join("");
    const marks = [-128, -64, 0, 64, 127].map((code) => text(180 + 1.25 * code, 146, signed(code).replace("+", "")));
    const inside = `<path class="stored" d="${line(stored)}V130H20Z"/><path class="read" d="${line(read)}"/>
      <path class="axis" d="M20 130h320"/>${marks.join("")}`;
    return `${chart(inside, 152, "Histogram of the layer's codes, as stored and as read")}
      <figcaption>Codes of the layer, how many (log scale): <span class="explainer-key stored"></span> stored,
      <span class="explainer-key read"></span> read</figcaption>`;
  }

  /** The weight whose cell is the first of its layer to fail. */
  function weakest(layer) {
    let least = 2 ** 32, found = layer.start;
    memory.cells.forEach((cell, k) => {
      const weight = cell >>> 3;
      if (weight < layer.start || weight >= layer.start + layer.codes.length || memory.marks[k] >= least) return;
      least = memory.marks[k];
      found = weight;
    });
    return found - layer.start;
  }

  function bits(layer) {
    const first = Math.max(0, Math.min(weakest(layer) - SHOWN / 2, layer.codes.length - SHOWN));
    const rows = Array.from({ length: SHOWN }, (_, line) => {
      const k = first + line;
      const [code, read] = [layer.codes[k], layer.read[k]], wrong = (code ^ read) & 255;
      const cells = [7, 6, 5, 4, 3, 2, 1, 0].map((bit) => {
        return `<td class="${(wrong >> bit) & 1 ? "flipped" : ""}">${(read >> bit) & 1}</td>`;
      });
      const ends = [code, read].map((value) => `<td>${signed(value)}</td>`);
      return `<tr class="${wrong ? "changed" : ""}">${ends[0]}${cells.join("")}${ends[1]}</tr>`;
    });
    return `<table class="explainer-bits">
      <caption>${SHOWN} weights around the layer's weakest cell, from number ${count(first)} on; flipped bits are
        framed</caption>
      <thead><tr><th scope="col">stored</th><th scope="colgroup" colspan="8">bits as read</th>
        <th scope="col">read</th></tr></thead>
      <tbody>${rows.join("")}</tbody></table>`;
  }

  function accuracy() {
    const rows = page.records.filter((row) => row.error_model === page.error_model);
    if (!rows.length) return "";
    const x = (ber) => 34 + (310 * Math.log(ber / curve.safe)) / Math.log(MOST / curve.safe);
    const y = (value) => 150 - 1.4 * value;
    const lines = page.systems.map((system, k) => {
      const own = rows.filter((row) => row.system === system);
      const path = (name) => `M${own.map((row) => `${x(row.rate).toFixed(1)} ${y(row[name]).toFixed(1)}`).join("L")}`;
      const dots = own.map((row) => `<circle cx="${x(row.rate)}" cy="${y(row.mean)}" r="3"/>`);
      const two = own.length ? `<path d="${path("mean")}"/><path class="worst" d="${path("worst")}"/>` : "";
      return `<g class="system${k}">${two}${dots.join("")}</g>`;
    });
    const line = (value) => `<path class="axis" d="M34 ${y(value)}h310"/>${text(30, y(value) + 4, value, "end")}`;
    const grid = [0, 50, 100].map(line);
    const ticks = [1e-5, 1e-4, 1e-3, 1e-2].map((ber) => text(x(ber), 166, percent(ber)));
    const here = `<path class="here" d="M${x(state.ber)} 10V150"/>`;
    const inside = [...grid, ...ticks, here, ...lines].join("");
    const keys = page.systems.map((system, k) => `<span class="explainer-key system${k}"></span> ${system}`).join(", ");
    return `${chart(inside, 172, "Measured accuracy over the bit-error rate")}
      <figcaption>Measured accuracy (%) over the bit-error rate, ${page.error_model}: ${keys};
        dashed: the worst chip</figcaption>`;
  }

  function measured() {
    const models = [...new Set(page.records.map((row) => row.error_model))];
    return models.map((name) => {
      const rows = Object.entries(nearest(page.records, name, state.ber)), one = rows[0][1];
      const parts = rows.map(([system, row]) => `${system} ${row.said}`);
      const of = `${name}, ${one.chips} chips, ${count(one.images)}`;
      return `Measured at ${percent(one.rate)} bit errors (${of} test images): ${parts.join("; ")}.`;
    }).join("<br>");
  }

  function answers() {
    const change = (changes[state.image] ??= forward(generator, seen[state.image], false));
    const moved = transformed(seen[state.image], change), three = [seen[state.image], change, moved];
    find("images").querySelectorAll("canvas").forEach((canvas, k) => paint(canvas, three[k]));
    const label = page.labels[state.image], words = [];
    find("answers").innerHTML = [seen[state.image], moved].map((input, k) => {
      const found = probabilities(forward(base, input, true)), top = found.indexOf(Math.max(...found));
      const right = top === label;
      const lines = found.map((p, c) => {
        const bar = `<i style="--p:${p.toFixed(4)}"></i><b>${Math.round(100 * p)} %</b>`;
        return `<li class="${c === label ? "label" : ""}"><span>${page.classes[c]}</span>${bar}</li>`;
      });
      words.push(`${page.systems[k]} “${page.classes[top]}”, ${right ? "right" : "wrong"}`);
      const mark = right ? '<span class="right">✓ right</span>' : '<span class="wrong">✗ wrong</span>';
      return `<div><h4>${page.systems[k]}: ${page.classes[top]} ${mark}</h4>
        <ol class="explainer-answers system${k}">${lines.join("")}</ol></div>`;
    }).join("");
    const energy = `a read takes ${tenths(readEnergy(curve, state.ber))} of the energy`;
    find("said").textContent = `${percent(state.ber)} bit errors, ${energy}. The ${page.classes[label]}: ${words.join("; ")}.`;
  }

  function show() { // what is quick, at once; the networks, when the slider rests
    if (drawn !== state.chip) (memory = chip(state.chip, base.weights, MOST)), (drawn = state.chip);
    const { bits: flipped, changed } = readBack(base, memory, state.ber), energy = readEnergy(curve, state.ber);
    const volts = voltage(curve, state.ber).toFixed(3), layer = base.layers[state.layer];
    slider.value = Math.round(STEPS * Math.log10(state.ber / curve.safe));
    slider.setAttribute("aria-valuetext", `${volts} of nominal, ${percent(state.ber)} bit errors`);
    number.value = state.chip;
    select.value = state.layer;
    find("thumbs").querySelectorAll("input")[state.image].checked = true;
    find("voltage").textContent = `${volts} of nominal: ${percent(state.ber)} bit errors`;
    find("numbers").innerHTML = [
      ["bits flipped", `${count(flipped)} of ${count(8 * base.weights)}`],
      ["weights changed", tenths(changed / base.weights)],
      ...page.systems.map((system, k) => [`energy, ${system}`, tenths(energy + k * page.front)]),
    ].map(([name, value]) => `<div><dt>${name}</dt><dd>${value}</dd></div>`).join("");
    find("histogram").innerHTML = histogram(layer);
    find("bits").innerHTML = bits(layer);
    find("accuracy").innerHTML = accuracy();
    find("records").innerHTML = measured();
    clearTimeout(waiting);
    waiting = setTimeout(answers, 60);
  }

  function take() { // the state that the address names
    const given = new URLSearchParams(location.hash.slice(1)), ber = Number(given.get("ber"));
    const limits = { chip: 999999, image: seen.length - 1, layer: base.layers.length - 1 };
    if (ber > 0) state.ber = Math.min(MOST, Math.max(curve.safe, ber));
    for (const [name, most] of Object.entries(limits)) {
      if (/^\d+$/.test(given.get(name) ?? "")) state[name] = Math.min(most, Number(given.get(name)));
    }
  }
  function change(name, value) {
    state[name] = value;
    requestAnimationFrame(show);
  }
  const address = () => `#${new URLSearchParams({ ...state, ber: +state.ber.toPrecision(3) })}`;
  const keep = () => history.replaceState(null, "", address());
  slider.addEventListener("input", () => change("ber", Math.min(MOST, curve.safe * 10 ** (slider.value / STEPS))));
  number.addEventListener("change", () => change("chip", Math.min(999999, Math.max(0, Math.floor(number.value) || 0))));
  find("other").addEventListener("click", () => (change("chip", (state.chip + 1) % 1000000), keep()));
  select.addEventListener("change", () => change("layer", Number(select.value)));
  find("thumbs").addEventListener("change", (event) => change("image", Number(event.target.value)));
  root.addEventListener("change", keep);
  addEventListener("hashchange", () => (take(), show()));
  take();
  show();
  document.getElementById("explainer-still").hidden = true;
  root.hidden = false;
})(typeof module === "undefined" ? {} : module.exports);
