"use strict";
// Parts, from the top: notes, sound (recording and synthesiser), spectrogram, view,
// drawing, pointers and keys. Times are in seconds, pitches are MIDI numbers.
(() => {
  const byId = (id) => document.getElementById(id);
  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
  const data = JSON.parse(byId("data").textContent);
  const seconds = data.seconds;
  const LOW = data.tiles.low;
  const PITCHES = 88;
  const NAMES = ["C", "C\u266f", "D", "E\u266d", "E", "F", "F\u266f", "G", "A\u266d", "A", "B\u266d", "B"];
  const BLACK = [1, 3, 6, 8, 10];
  const isBlack = (pitch) => BLACK.includes(pitch % 12);
  const nameOf = (pitch) => NAMES[pitch % 12] + (Math.floor(pitch / 12) - 1);
  const clockOf = (time, digits = 0) => {
    const scale = 10 ** digits;
    const whole = Math.floor(time * scale + 1e-6) / scale;
    const rest = (whole % 60).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
    const minutes = Math.floor(whole / 60);
    if (minutes < 60) return `${minutes}:${rest}`;
    return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}`;
  };

  // ---- notes, in order of their start ------------------------------------------------

  const count = data.notes.start.length;
  const starts = Float64Array.from(data.notes.start, (ms) => ms / 1000);
  const ends = Float64Array.from(data.notes.length, (ms, i) => starts[i] + ms / 1000);
  const pitches = Uint8Array.from(data.notes.pitch);
  const parts = Uint8Array.from(data.notes.part);
  const velocities = Uint8Array.from(data.notes.velocity);
  const melody = data.notes.melody ? Uint8Array.from(data.notes.melody) : null;
  // The latest end up to each note only grows, so that it can be searched.
  const reach = new Float64Array(count);
  for (let i = 0; i < count; i++) reach[i] = Math.max(ends[i], i ? reach[i - 1] : 0);
  const shown = data.parts.map(() => true);
  let melodyOnly = false;

  function search(sorted, time) {
    let low = 0;
    let high = count;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle] <= time) low = middle + 1;
      else high = middle;
    }
    return low; // the first that is later
  }

  const isHeard = (i) => shown[parts[i]] && (!melodyOnly || melody[i]);

  function soundingAt(time) {
    const found = [];
    const last = search(starts, time);
    for (let i = search(reach, time); i < last; i++) {
      if (ends[i] > time && isHeard(i)) found.push(i);
    }
    return found;
  }

  // ---- sound: the recording is the clock, also where it is muted ---------------------

  const audio = new Audio();
  audio.preload = "auto";
  const SETTLES = 0.15; // seconds after its start in which the clock may stand still
  let anchor = { real: 0, time: 0 };
  let started = 0;
  let source = "recording";

  function loadRecording() {
    const holder = byId("audio");
    const text = atob(holder.textContent);
    holder.remove();
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    audio.src = URL.createObjectURL(new Blob([bytes], { type: "audio/mpeg" }));
  }

  const isSteady = (real) => real - started > SETTLES;

  // Browsers tell the time of a recording in steps; between them it runs on.
  function position() {
    const real = performance.now() / 1000;
    if (audio.paused || audio.seeking || audio.readyState < 3 || !isSteady(real)) {
      anchor = { real, time: audio.currentTime };
      return clamp(audio.currentTime, 0, seconds);
    }
    const guess = anchor.time + (real - anchor.real) * audio.playbackRate;
    const error = audio.currentTime - guess;
    anchor = { real, time: Math.abs(error) > 0.15 ? audio.currentTime : guess + 0.05 * error };
    return clamp(anchor.time, 0, seconds);
  }

  function seek(time) {
    audio.currentTime = clamp(time, 0, seconds);
    anchor = { real: performance.now() / 1000, time: audio.currentTime };
    synth.restart();
    wake();
  }

  async function toggle() {
    if (!audio.paused) {
      audio.pause();
      return;
    }
    if (audio.ended || position() > seconds - 0.05) jump(0);
    const x = xOf(position());
    if (x < view.keys || x > view.width) setFollow(true);
    synth.open();
    try {
      await audio.play();
    } catch (error) {
      if (error.name !== "AbortError") say(`The recording cannot be played: ${error.message}`);
    }
  }

  // Amplitudes of harmonics, attack and decay in seconds; a decay of 0 sustains.
  const STRUCK = { harmonics: [1, 0.5, 0.3, 0.18, 0.1, 0.06, 0.03], attack: 0.004, decay: 1.1 };
  const PLUCKED = { harmonics: [0.7, 0.9, 0.7, 0.6, 0.45, 0.35, 0.25, 0.2, 0.12], attack: 0.002, decay: 0.6 };
  const BOWED = { harmonics: [1, 0.55, 0.42, 0.3, 0.22, 0.16, 0.12, 0.09, 0.07], attack: 0.06, decay: 0 };
  const BRASS = { harmonics: [1, 0.75, 0.5, 0.28, 0.14, 0.07], attack: 0.04, decay: 0 };
  const DOUBLE_REED = { harmonics: [0.6, 0.8, 1, 0.6, 0.4, 0.25, 0.15, 0.1], attack: 0.03, decay: 0 };
  const CLARINET = { harmonics: [1, 0.05, 0.6, 0.06, 0.3, 0.06, 0.14, 0.04, 0.06], attack: 0.03, decay: 0 };
  const FLUTE = { harmonics: [1, 0.28, 0.1, 0.03], attack: 0.05, decay: 0 };
  const OTHER = { harmonics: [1, 0.4, 0.2, 0.1], attack: 0.02, decay: 0 };

  function timbreOf(program) {
    if (program === 7 || program === 8 || (program > 24 && program <= 40)) return PLUCKED;
    if (program === 46 || program === 47) return PLUCKED;
    if (program >= 1 && program <= 16) return STRUCK;
    if (program > 40 && program <= 56) return BOWED;
    if (program > 56 && program <= 64) return BRASS;
    if (program > 68 && program <= 71) return DOUBLE_REED;
    if (program > 64 && program <= 72) return CLARINET;
    if (program > 72 && program <= 80) return FLUTE;
    return OTHER;
  }

  const synth = (() => {
    const AHEAD = 0.3;
    const VOICES = 64;
    let context = null;
    let output = null;
    let outputs = [];
    let waves = null;
    let next = 0;
    const live = new Set();

    function open() {
      if (!context) {
        const Kind = window.AudioContext || window.webkitAudioContext;
        if (!Kind) return;
        context = new Kind();
        const limit = context.createDynamicsCompressor();
        limit.connect(context.destination);
        output = context.createGain();
        output.gain.value = clamp(1.8 * data.level, 0.02, 0.3); // about as loud as it
        output.connect(limit);
        outputs = data.parts.map(() => {
          const gain = context.createGain();
          gain.connect(output);
          return gain;
        });
        waves = new Map();
        hear();
      }
      context.resume();
    }

    function waveOf(timbre) {
      if (!waves.has(timbre)) {
        const real = new Float32Array(timbre.harmonics.length + 1);
        const imaginary = Float32Array.from([0, ...timbre.harmonics]);
        waves.set(timbre, context.createPeriodicWave(real, imaginary));
      }
      return waves.get(timbre);
    }

    function strike(pitch, velocity, timbre, from, length, target) {
      if (live.size >= VOICES) live.values().next().value.end(context.currentTime);
      const oscillator = context.createOscillator();
      const envelope = context.createGain();
      oscillator.setPeriodicWave(waveOf(timbre));
      oscillator.frequency.value = data.a4 * 2 ** ((pitch - 69) / 12);
      const peak = (0.25 + 0.75 * velocity / 127) ** 2;
      const to = from + Math.max(length, timbre.attack + 0.03);
      const gain = envelope.gain;
      gain.setValueAtTime(0, from);
      gain.linearRampToValueAtTime(peak, from + timbre.attack);
      // High notes of struck and plucked strings die away faster.
      const decay = timbre.decay * 2 ** ((60 - pitch) / 24);
      if (timbre.decay) gain.setTargetAtTime(0, from + timbre.attack, decay);
      gain.setTargetAtTime(0, to, 0.05);
      oscillator.connect(envelope).connect(target);
      oscillator.start(from);
      oscillator.stop(to + 0.4);
      const voice = {
        end(time) {
          live.delete(voice);
          gain.cancelScheduledValues(time);
          gain.setTargetAtTime(0, time, 0.015);
          oscillator.stop(from > time ? 0 : time + 0.15); // one to come is not heard
        },
      };
      live.add(voice);
      oscillator.onended = () => {
        live.delete(voice);
        envelope.disconnect();
      };
    }

    function play(i, time, speed) {
      const from = Math.max(starts[i], time);
      const timbre = timbreOf(data.parts[parts[i]].program);
      const when = context.currentTime + Math.max(0, from - time) / speed;
      strike(pitches[i], velocities[i], timbre, when, (ends[i] - from) / speed, outputs[parts[i]]);
    }

    function restart() {
      if (!context) return;
      for (const voice of [...live]) voice.end(context.currentTime);
      next = -1;
    }

    function schedule() {
      if (!context || source === "recording" || audio.paused || audio.seeking) return;
      if (!isSteady(performance.now() / 1000)) return;
      const time = position();
      const speed = audio.playbackRate;
      if (next < 0) {
        for (const i of soundingAt(time)) if (ends[i] - time > 0.05) play(i, time, speed);
        next = search(starts, time);
      }
      for (; next < count && starts[next] < time + AHEAD * speed; next++) {
        if (isHeard(next)) play(next, time, speed);
      }
    }

    function hear() {
      outputs.forEach((gain, part) => gain.gain.setTargetAtTime(shown[part] ? 1 : 0, context.currentTime, 0.02));
    }

    function audition(pitch, part) {
      open();
      if (!context) return;
      const timbre = timbreOf(data.parts.length ? data.parts[part].program : 1);
      strike(pitch, 90, timbre, context.currentTime, 0.5, output);
    }

    setInterval(schedule, 60);
    return { open, restart, hear, audition, voices: () => live.size };
  })();

  // ---- spectrogram: tiles of grey values, tinted when they are first seen -------------

  const spectrogram = (() => {
    const KEPT = 80; // more than a view of any width needs
    const { columns, rows, levels } = data.tiles;
    const tiles = new Map();
    let on = true;
    let tint = [0, 0, 0];
    let waiting = 0;

    function tinted(image) {
      const canvas = document.createElement("canvas");
      canvas.width = image.naturalWidth;
      canvas.height = image.naturalHeight;
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
      const values = pixels.data;
      for (let i = 0; i < values.length; i += 4) {
        const grey = values[i] / 255;
        values[i] = tint[0];
        values[i + 1] = tint[1];
        values[i + 2] = tint[2];
        values[i + 3] = 185 * grey * grey;
      }
      context.putImageData(pixels, 0, 0);
      return canvas;
    }

    function tile(level, index) {
      const key = level * 1e6 + index;
      let entry = tiles.get(key);
      if (entry) {
        tiles.delete(key); // and set again below, as the one used last
      } else {
        const image = new Image();
        entry = { canvas: null, image };
        waiting++;
        image.onload = () => {
          waiting--;
          entry.canvas = tinted(image);
          wake();
        };
        image.src = `data:image/webp;base64,${levels[level].tiles[index]}`;
      }
      tiles.set(key, entry);
      if (tiles.size > KEPT) tiles.delete(tiles.keys().next().value);
      return entry.canvas;
    }

    // Draw times from `left` on, `scale` pixels a second, with pitch `top` at `y`.
    function draw(context, { x, y, width, height, left, scale, top, row, dense }) {
      if (!on) return;
      let level = 0;
      while (level + 1 < levels.length && levels[level + 1].rate >= (scale * dense) / 2) level++;
      const { rate, tiles: images } = levels[level];
      const snap = (value) => Math.round(value * dense) / dense;
      // A column is centred on its time; tiles of coarser levels begin where it begins.
      const shift = 0.5 / levels[0].rate;
      const first = Math.max(0, Math.floor(((left + shift) * rate) / columns));
      const last = Math.floor(((left + shift + width / scale) * rate) / columns);
      const perSemitone = rows / PITCHES;
      const from = clamp((LOW + PITCHES - 0.5 - top) * perSemitone, 0, rows);
      const to = clamp(from + (height / row) * perSemitone, 0, rows);
      context.imageSmoothingEnabled = true;
      for (let index = first; index <= Math.min(last, images.length - 1); index++) {
        const image = tile(level, index);
        if (!image) continue;
        const start = snap(x + ((index * columns) / rate - shift - left) * scale);
        const end = snap(x + ((index * columns + image.width) / rate - shift - left) * scale);
        context.drawImage(image, 0, from, image.width, to - from, start, y, end - start, ((to - from) / perSemitone) * row);
      }
    }

    return {
      draw,
      isOn: () => on,
      isThere: () => !waiting,
      toggle() { on = !on; },
      colour(text) {
        tint = text.split(/\s+/).map(Number);
        for (const entry of tiles.values()) if (entry.canvas) entry.canvas = tinted(entry.image);
      },
    };
  })();

  // ---- view --------------------------------------------------------------------------

  const roll = byId("roll");
  const overview = byId("overview");
  const view = { left: 0, scale: 80, top: 0, row: 10, width: 1, height: 1, keys: 56, ruler: 24, dense: 1 };
  const HIGHEST = LOW + PITCHES - 0.5;
  let follow = true;
  const still = matchMedia("(prefers-reduced-motion: reduce)");

  const roomWide = () => Math.max(1, view.width - view.keys);
  const roomHigh = () => Math.max(1, view.height - view.ruler);
  const xOf = (time) => view.keys + (time - view.left) * view.scale;
  const timeAt = (x) => view.left + (x - view.keys) / view.scale;
  const yOf = (pitch) => view.ruler + (view.top - pitch) * view.row;
  const pitchAt = (y) => view.top - (y - view.ruler) / view.row;
  const leastScale = () => Math.min(400, roomWide() / Math.max(seconds, 0.5));

  function settle() {
    view.scale = clamp(view.scale, leastScale(), 1200);
    view.row = clamp(view.row, roomHigh() / PITCHES, Math.max(roomHigh() / 10, roomHigh() / PITCHES));
    view.left = clamp(view.left, 0, Math.max(0, seconds - roomWide() / view.scale));
    view.top = clamp(view.top, LOW - 0.5 + roomHigh() / view.row, HIGHEST);
    wake();
  }

  function zoom(factor, x) {
    const at = x === undefined ? clamp(xOf(position()), view.keys, view.width) : x;
    const time = timeAt(at);
    view.scale = clamp(view.scale * factor, leastScale(), 1200);
    view.left = time - (at - view.keys) / view.scale;
    settle();
  }

  function zoomPitch(factor, y) {
    const at = y === undefined ? view.ruler + roomHigh() / 2 : y;
    const pitch = pitchAt(at);
    view.row *= factor;
    settle();
    view.top = pitch + (at - view.ruler) / view.row;
    settle();
  }

  function pan(dx, dy) {
    if (Math.abs(dx) > 0.5) setFollow(false);
    view.left -= dx / view.scale;
    view.top += dy / view.row;
    settle();
  }

  function fit() {
    view.scale = leastScale();
    view.left = 0;
    fitPitches();
  }

  function fitPitches() {
    let low = 55;
    let high = 79;
    if (count) {
      const sorted = pitches.slice().sort(); // a stray note or two don't count
      low = sorted[Math.floor(0.005 * count)] - 3;
      high = sorted[count - 1 - Math.floor(0.005 * count)] + 4;
    }
    const missing = Math.max(0, 24 - (high - low)) / 2;
    view.row = roomHigh() / (high - low + 1 + 2 * missing);
    view.top = high + missing + 0.5;
    settle();
  }

  function keepInSight(time) {
    if (!follow) return;
    const span = roomWide() / view.scale;
    if (still.matches) {
      if (time < view.left || time > view.left + 0.95 * span) view.left = time - 0.05 * span;
    } else {
      view.left = time - 0.35 * span;
    }
    view.left = clamp(view.left, 0, Math.max(0, seconds - span));
  }

  function setFollow(on) {
    follow = on;
    byId("follow").setAttribute("aria-pressed", on);
    wake();
  }

  // ---- drawing -----------------------------------------------------------------------

  let colours = {};
  let stale = true; // what the overview shows of all notes
  const background = document.createElement("canvas");
  const stats = { frames: 0, visited: 0, drawn: 0 };
  const brush = roll.getContext("2d", { alpha: false });
  const pen = overview.getContext("2d", { alpha: false });

  function readColours() {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(`--${name}`).trim();
    colours = { parts: data.parts.map((part, i) => read(`part-${i % 8}`)) };
    for (const name of ["ground", "surface", "text", "quiet", "line", "accent", "lit", "stripe", "grid", "playhead", "white-key", "black-key", "key-line"]) {
      colours[name] = read(name);
    }
    colours.font = getComputedStyle(document.body).fontFamily;
    spectrogram.colour(read("spectrum"));
    stale = true;
    wake();
  }

  const density = () => Math.min(2, window.devicePixelRatio || 1);

  function measure(canvas, context) {
    const dense = density();
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    canvas.width = Math.max(1, Math.round(width * dense));
    canvas.height = Math.max(1, Math.round(height * dense));
    context.setTransform(dense, 0, 0, dense, 0, 0);
    return { width, height, dense };
  }

  function resize() {
    const before = roomHigh();
    Object.assign(view, measure(roll, brush));
    view.keys = view.width < 600 ? 40 : 56;
    view.row *= roomHigh() / before;
    measure(overview, pen);
    stale = true;
    settle();
    draw(); // at once, as a canvas that is resized is empty
  }

  function drawRows() {
    brush.fillStyle = colours.surface;
    brush.fillRect(0, 0, view.width, view.height);
    const bottom = Math.max(LOW, Math.floor(pitchAt(view.height)));
    brush.fillStyle = colours.stripe;
    for (let pitch = Math.ceil(view.top); pitch >= bottom; pitch--) {
      if (isBlack(pitch)) brush.fillRect(view.keys, yOf(pitch + 0.5), roomWide(), view.row);
    }
  }

  function step() {
    const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 3600];
    return steps.find((each) => each * view.scale >= 72) || 3600;
  }

  function drawGrid() {
    brush.fillStyle = colours.grid;
    for (let pitch = 12 * Math.ceil(LOW / 12); pitch < LOW + PITCHES; pitch += 12) {
      const y = Math.round(yOf(pitch - 0.5));
      if (y > view.ruler && y < view.height) brush.fillRect(view.keys, y, roomWide(), 1);
    }
    const each = step();
    for (let i = Math.ceil(view.left / each); i * each <= Math.min(seconds, timeAt(view.width)); i++) {
      brush.fillRect(Math.round(xOf(i * each)), view.ruler, 1, roomHigh());
    }
  }

  function drawRuler(time) {
    brush.fillStyle = colours.ground;
    brush.fillRect(0, 0, view.width, view.ruler);
    brush.fillStyle = colours.line;
    brush.fillRect(0, view.ruler - 1, view.width, 1);
    brush.fillStyle = colours.quiet;
    brush.font = `12px ${colours.font}`;
    brush.textAlign = "left";
    brush.textBaseline = "middle";
    const each = step();
    for (let i = Math.ceil(view.left / each); i * each <= Math.min(seconds, timeAt(view.width)); i++) {
      const x = Math.round(xOf(i * each));
      brush.fillRect(x, view.ruler - 7, 1, 6);
      brush.fillText(clockOf(i * each, each < 1 ? 1 : 0), x + 5, view.ruler / 2);
    }
    const x = xOf(time);
    if (x < view.keys - 6) return;
    brush.fillStyle = colours.playhead;
    brush.beginPath();
    brush.moveTo(x - 6, view.ruler - 12);
    brush.lineTo(x + 6, view.ruler - 12);
    brush.lineTo(x, view.ruler - 2);
    brush.fill();
  }

  // Notes `first` to `last` in the coordinates of the roll, those heard at `time` bright.
  function paintNotes(context, first, last, time) {
    const inset = view.row > 7 ? 1 : view.row > 3 ? 0.5 : 0;
    const high = Math.max(1, view.row - 2 * inset);
    const round = high > 7 && last - first < 1200 ? Math.min(3.5, high / 3) : 0;
    const covered = new Float32Array(128 * Math.max(1, data.parts.length)).fill(-1e9);
    const held = { until: new Float64Array(128), part: new Uint8Array(128) };
    for (let i = first; i < last; i++) {
      if (!shown[parts[i]]) continue;
      const pitch = pitches[i];
      const x = xOf(starts[i]);
      const end = xOf(ends[i]);
      // Where a pixel holds several notes of a pitch, one is drawn.
      const cell = parts[i] * 128 + pitch;
      if (end < covered[cell] + 0.5) continue;
      covered[cell] = Math.max(end, x + 1);
      // Of two instruments in unison the later one has the lower half of the row.
      const unison = starts[i] < held.until[pitch] - 0.01 && held.part[pitch] !== parts[i];
      if (ends[i] > held.until[pitch] && !unison) {
        held.until[pitch] = ends[i];
        held.part[pitch] = parts[i];
      }
      const y = yOf(pitch + 0.5) + inset + (unison ? high / 2 : 0);
      if (y > view.height || y + high < view.ruler) continue;
      const heard = isHeard(i);
      const active = heard && starts[i] <= time && ends[i] > time;
      context.globalAlpha = heard ? (active ? 1 : 0.5 + 0.4 * velocities[i] / 127) : 0.14;
      const width = Math.max(1.5, end - x - (round ? 1 : 0));
      bar(context, i, x, y, width, unison ? high / 2 : high, unison ? round / 2 : round);
      stats.drawn++;
    }
    context.globalAlpha = 1;
  }

  function bar(context, i, x, y, width, height, round) {
    const colour = colours.parts[parts[i]];
    if (parts[i] >= 8 && height > 4) { // the palette's second turn is hollow
      context.strokeStyle = colour;
      context.lineWidth = 2;
      context.strokeRect(x + 1, y + 1, Math.max(1, width - 2), height - 2);
      return;
    }
    if (context.fillStyle !== colour) context.fillStyle = colour;
    if (round && width > 5 && context.roundRect) {
      context.beginPath();
      context.roundRect(x, y, width, height, round);
      context.fill();
    } else {
      context.fillRect(x, y, width, height);
    }
  }

  // Where thousands are in sight, notes are painted once on a sheet twice as wide.
  const MANY = 2500;
  const sheet = { canvas: document.createElement("canvas"), key: "", asked: "", left: 0 };

  function paintSheet(key, span) {
    sheet.key = key;
    sheet.left = view.left - span / 2;
    sheet.canvas.width = Math.round(2 * roomWide() * view.dense);
    sheet.canvas.height = Math.round(view.height * view.dense);
    const context = sheet.canvas.getContext("2d");
    context.setTransform(view.dense, 0, 0, view.dense, -xOf(sheet.left) * view.dense, 0);
    paintNotes(context, search(reach, sheet.left), search(starts, sheet.left + 2 * span), -1);
  }

  function drawNotes(time) {
    const first = search(reach, view.left);
    const last = search(starts, timeAt(view.width));
    const lit = soundingAt(time).filter((i) => i >= first && i < last);
    stats.visited = last - first;
    stats.drawn = 0;
    if (last - first < MANY) {
      paintNotes(brush, first, last, time);
      return lit;
    }
    const key = [view.scale, view.top, view.row, view.width, view.height, shown, melodyOnly, colours.surface].join();
    const span = roomWide() / view.scale;
    const there = sheet.key === key && view.left >= sheet.left && view.left + span <= sheet.left + 2 * span;
    // While a zoom goes on, what is in sight is enough.
    if (!there && sheet.asked !== key) paintNotes(brush, first, last, time);
    else {
      if (!there) paintSheet(key, span);
      brush.drawImage(sheet.canvas, xOf(sheet.left), 0, 2 * roomWide(), view.height);
    }
    sheet.asked = key;
    return lit;
  }

  function drawLabels(lit) {
    const inset = 1;
    brush.strokeStyle = colours.lit;
    brush.lineWidth = 1.5;
    for (const i of view.row > 7 ? lit : []) {
      const x = Math.max(xOf(starts[i]), view.keys - 8);
      brush.strokeRect(x, yOf(pitches[i] + 0.5) + inset, Math.max(2, xOf(ends[i]) - x - 1), Math.max(1, view.row - 2 * inset));
    }
    if (view.row < 12) return;
    const first = search(reach, view.left);
    const last = search(starts, timeAt(view.width));
    brush.fillStyle = colours.surface;
    brush.font = `600 ${Math.min(12, view.row - 3)}px ${colours.font}`;
    brush.textAlign = "left";
    brush.textBaseline = "middle";
    const labelled = new Float64Array(128).fill(-9);
    for (let i = first; i < last; i++) {
      const x = Math.max(xOf(starts[i]), view.keys);
      const again = starts[i] - labelled[pitches[i]] < 0.25;
      if (xOf(ends[i]) - x <= 30 || !isHeard(i) || parts[i] >= 8 || again) continue;
      labelled[pitches[i]] = starts[i];
      brush.fillText(nameOf(pitches[i]), x + 5, yOf(pitches[i]) + 0.5);
    }
  }

  function drawMelody() {
    if (!melody) return;
    const last = search(starts, timeAt(view.width) + 4);
    brush.strokeStyle = colours.lit;
    brush.lineWidth = 2;
    brush.lineJoin = "round";
    brush.beginPath();
    const line = [];
    for (let i = search(reach, view.left - 4); i < last; i++) if (melody[i] && shown[parts[i]]) line.push(i);
    line.forEach((i, k) => {
      const y = yOf(pitches[i] - 0.5) - 1; // along the feet of the notes
      const joined = k && starts[i] - ends[line[k - 1]] < 2;
      if (joined) brush.lineTo(xOf(starts[i]), y);
      else brush.moveTo(xOf(starts[i]), y);
      brush.lineTo(xOf(k + 1 < line.length ? Math.min(ends[i], starts[line[k + 1]]) : ends[i]), y);
    });
    brush.stroke();
  }

  function drawKeys(lit) {
    const held = new Map(lit.map((i) => [pitches[i], colours.parts[parts[i]]]));
    const top = Math.min(LOW + PITCHES - 1, Math.ceil(view.top));
    const bottom = Math.max(LOW, Math.floor(pitchAt(view.height)));
    brush.fillStyle = colours["white-key"];
    brush.fillRect(0, view.ruler, view.keys, roomHigh());
    for (let pitch = top; pitch >= bottom; pitch--) {
      const y = yOf(pitch + 0.5);
      if (held.has(pitch) || isBlack(pitch)) {
        brush.fillStyle = held.get(pitch) || colours["black-key"];
        brush.fillRect(0, y, isBlack(pitch) ? view.keys * 0.62 : view.keys, view.row);
      }
      if (pitch % 12 === 0 || pitch % 12 === 5) { // between two white keys
        brush.fillStyle = colours["key-line"];
        brush.fillRect(0, y + view.row - 0.5, view.keys, 1);
      }
    }
    brush.fillStyle = colours.line;
    brush.fillRect(view.keys - 1, view.ruler, 1, roomHigh());
    brush.font = `${clamp(view.row - 1, 9, 12)}px ${colours.font}`;
    brush.textAlign = "right";
    brush.textBaseline = "middle";
    for (let pitch = top; pitch >= bottom; pitch--) {
      brush.fillStyle = held.has(pitch) ? colours.surface : "#14181f";
      if (pitch % 12 === 0 || (view.row > 11 && !isBlack(pitch))) brush.fillText(nameOf(pitch), view.keys - 5, yOf(pitch));
    }
  }

  function draw() {
    if (view.dense !== density()) return resize(); // the page is on another screen now
    const time = position();
    if (!audio.paused) keepInSight(time);
    drawRows();
    spectrogram.draw(brush, { x: view.keys, y: view.ruler, width: roomWide(), height: roomHigh(), ...view, dense: view.dense });
    drawGrid();
    const lit = drawNotes(time);
    drawLabels(lit);
    drawMelody();
    const x = xOf(time);
    if (x >= view.keys) {
      brush.fillStyle = colours.playhead;
      brush.fillRect(x - 1, view.ruler, 2, roomHigh());
    }
    drawKeys(lit);
    drawRuler(time);
    drawOverview(time);
    tell(time, lit);
    if (hovered) showTip(hovered); // the notes may have moved under the pointer
    stats.frames++;
  }

  function paintOverview(width, height) {
    const context = background.getContext("2d");
    background.width = overview.width;
    background.height = overview.height;
    context.setTransform(view.dense, 0, 0, view.dense, 0, 0);
    context.fillStyle = colours.surface;
    context.fillRect(0, 0, width, height);
    const scale = width / seconds;
    let low = 127;
    let high = 0;
    for (const pitch of pitches) {
      low = Math.min(low, pitch);
      high = Math.max(high, pitch);
    }
    const row = (height - 8) / Math.max(12, high - low + 1);
    const taken = new Float32Array(128 * Math.max(1, data.parts.length)).fill(-1);
    for (let i = 0; i < count; i++) {
      const cell = parts[i] * 128 + pitches[i];
      const end = Math.max(ends[i] * scale, starts[i] * scale + 1);
      if (!isHeard(i) || end < taken[cell] + 0.5) continue;
      taken[cell] = end;
      context.fillStyle = colours.parts[parts[i]];
      context.fillRect(starts[i] * scale, 4 + (high - pitches[i]) * row, end - starts[i] * scale, Math.max(1, row));
    }
    stale = false;
  }

  function drawOverview(time) {
    const width = overview.clientWidth;
    const height = overview.clientHeight;
    if (!width || !height) return;
    if (stale) paintOverview(width, height);
    pen.drawImage(background, 0, 0, width, height);
    const scale = width / seconds;
    const left = view.left * scale;
    const right = Math.min(width, left + (roomWide() / view.scale) * scale);
    pen.fillStyle = colours.surface;
    pen.globalAlpha = 0.62;
    pen.fillRect(0, 0, left, height);
    pen.fillRect(right, 0, width - right, height);
    pen.globalAlpha = 1;
    pen.strokeStyle = colours.quiet;
    pen.strokeRect(left + 0.5, 0.5, Math.max(2, right - left - 1), height - 1);
    pen.fillStyle = colours.playhead;
    pen.fillRect(clamp(time * scale - 1, 0, width - 2), 0, 2, height);
  }

  // ---- words -------------------------------------------------------------------------

  let told = "";

  function say(text) {
    if (text === told) return;
    told = text;
    byId("now").textContent = text;
  }

  function tell(time, lit) {
    const whole = clockOf(time);
    const clock = byId("clock").firstElementChild;
    if (clock.textContent !== whole) clock.textContent = whole;
    overview.setAttribute("aria-valuenow", time.toFixed(1));
    const words = lit.slice(0, 12).reverse().map((i) => `${nameOf(pitches[i])} ${data.parts[parts[i]].name}`);
    overview.setAttribute("aria-valuetext", `${whole} of ${clockOf(seconds)}`);
    if (!audio.error) say(words.join(", "));
  }

  function noteAt(x, y) {
    const time = timeAt(x);
    const pitch = Math.round(pitchAt(y));
    const slack = 2 / view.scale;
    let found = -1;
    const last = search(starts, time + slack);
    for (let i = search(reach, time - slack); i < last; i++) {
      if (pitches[i] === pitch && shown[parts[i]] && ends[i] >= time - slack) found = i;
    }
    return x < view.keys || y < view.ruler ? -1 : found;
  }

  let hovered = null; // where the mouse is over the roll

  function hideTip() {
    hovered = null;
    byId("tip").hidden = true;
  }

  function showTip({ x, y }) {
    const tip = byId("tip");
    const i = noteAt(x, y);
    tip.hidden = i < 0;
    if (i < 0) return;
    tip.textContent = `${nameOf(pitches[i])} ${data.parts[parts[i]].name}, ${clockOf(starts[i], 2)} for ${(ends[i] - starts[i]).toFixed(2)} s, velocity ${velocities[i]}`;
    const left = clamp(x + 14, 4, Math.max(4, view.width - tip.offsetWidth - 4));
    const top = y + 18 + tip.offsetHeight > view.height ? y - tip.offsetHeight - 10 : y + 18;
    tip.style.transform = `translate(${left}px, ${Math.max(2, top)}px)`;
  }

  // ---- frames ------------------------------------------------------------------------

  let asked = false;

  function wake() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
      if (!audio.paused && !audio.ended) wake();
    });
  }

  // ---- pointers ----------------------------------------------------------------------

  const pointers = new Map();
  let gesture = null;

  const placeOf = (event, canvas) => {
    const box = canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };

  function press(event) {
    if (event.button) return;
    const place = placeOf(event, roll);
    roll.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, place);
    gesture = { ...place, moved: pointers.size > 1, scrub: place.y < view.ruler && place.x > view.keys };
    if (gesture.scrub) seek(timeAt(place.x));
  }

  function move(event) {
    const place = placeOf(event, roll);
    const before = pointers.get(event.pointerId);
    if (!before) {
      hovered = place;
      showTip(place);
      return;
    }
    if (pointers.size === 2) pinch(event.pointerId, before, place);
    else if (gesture.scrub) seek(timeAt(place.x));
    else if (gesture.moved || Math.hypot(place.x - gesture.x, place.y - gesture.y) > 5) {
      gesture.moved = true;
      hideTip();
      roll.classList.add("dragged");
      pan(place.x - before.x, place.y - before.y);
    } else return; // the pointer has not yet left the place where it was pressed
    pointers.set(event.pointerId, place);
  }

  function pinch(id, before, after) {
    const other = [...pointers].find(([each]) => each !== id)[1];
    const spread = (a, b, axis) => Math.abs(a[axis] - b[axis]);
    const middle = (axis, place) => (place[axis] + other[axis]) / 2;
    gesture.moved = true;
    if (spread(before, other, "x") > 40) zoom(Math.max(0.2, spread(after, other, "x") / spread(before, other, "x")), middle("x", after));
    if (spread(before, other, "y") > 60) zoomPitch(Math.max(0.2, spread(after, other, "y") / spread(before, other, "y")), middle("y", after));
    pan((after.x - before.x) / 2, (after.y - before.y) / 2);
  }

  function release(event) {
    if (!pointers.delete(event.pointerId)) return;
    const place = placeOf(event, roll);
    roll.classList.remove("dragged");
    if (event.type === "pointerup" && !gesture.moved && !gesture.scrub) {
      if (place.y < view.ruler) return;
      if (place.x < view.keys) synth.audition(clamp(Math.round(pitchAt(place.y)), LOW, LOW + PITCHES - 1), 0);
      else seek(timeAt(place.x));
      if (event.pointerType !== "mouse" && audio.paused) showTip(place);
    }
  }

  function wheel(event) {
    if (window !== window.parent && !document.hasFocus()) return; // a notebook scrolls on
    event.preventDefault();
    const unit = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1;
    const place = placeOf(event, roll);
    const [dx, dy] = [event.deltaX * unit, event.deltaY * unit];
    const factor = Math.exp(-clamp(dy, -240, 240) * (event.ctrlKey ? 0.01 : 0.002));
    if (event.altKey || place.x < view.keys) zoomPitch(factor, place.y);
    else if (event.shiftKey) pan(-(dx || dy), 0);
    else if (Math.abs(dx) > Math.abs(dy)) pan(-dx, 0);
    else zoom(factor, follow && !audio.paused ? undefined : place.x);
  }

  function scrub(event) {
    if (event.button > 0) return;
    if (event.type === "pointerdown") overview.setPointerCapture(event.pointerId);
    else if (!overview.hasPointerCapture(event.pointerId)) return;
    const time = clamp((placeOf(event, overview).x / overview.clientWidth) * seconds, 0, seconds);
    seek(time);
    view.left = time - (0.35 * roomWide()) / view.scale;
    settle();
  }

  // ---- buttons and keys --------------------------------------------------------------

  function setSource(name) {
    const radio = document.querySelector(`input[value="${name}"]`);
    if (radio.disabled) return;
    radio.checked = true;
    source = name;
    audio.muted = name === "notes";
    synth.restart();
  }

  const press_ = (button, on) => button.setAttribute("aria-pressed", on);

  function togglePart(button) {
    const part = Number(button.dataset.part);
    shown[part] = !shown[part];
    press_(button, shown[part]);
    stale = true;
    synth.hear();
    synth.restart();
    wake();
  }

  function toggleMelody() {
    if (!melody) return;
    melodyOnly = !melodyOnly;
    press_(byId("melody"), melodyOnly);
    stale = true;
    synth.restart();
    wake();
  }

  function toggleSpectrogram() {
    spectrogram.toggle();
    press_(byId("spectrogram"), spectrogram.isOn());
    wake();
  }

  function jump(time) {
    seek(time);
    const x = xOf(clamp(time, 0, seconds));
    if (follow || x < view.keys || x > view.width) {
      view.left = clamp(time, 0, seconds) - (0.35 * roomWide()) / view.scale;
      settle();
    }
  }

  const KEYS = {
    " ": toggle,
    ArrowLeft: (event) => jump(position() - (event.shiftKey ? 15 : 2)),
    ArrowRight: (event) => jump(position() + (event.shiftKey ? 15 : 2)),
    ArrowUp: () => pan(0, 2 * view.row),
    ArrowDown: () => pan(0, -2 * view.row),
    Home: () => jump(0),
    End: () => jump(seconds),
    "+": () => zoom(1.4),
    "=": () => zoom(1.4),
    "-": () => zoom(1 / 1.4),
    "_": () => zoom(1 / 1.4),
    0: fit,
    "]": () => zoomPitch(1.25),
    "[": () => zoomPitch(0.8),
    1: () => setSource("recording"),
    2: () => setSource("notes"),
    3: () => setSource("both"),
    f: () => setFollow(!follow),
    s: toggleSpectrogram,
    m: toggleMelody,
    "?": () => byId("keys").showModal(),
  };

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
    const at = event.target;
    // Buttons keep their space, choices their arrows, and lists all keys.
    if (at.matches("select") || (event.key === " " && at.matches("button"))) return;
    if (event.key.startsWith("Arrow") && at.matches("input")) return;
    const action = Object.hasOwn(KEYS, event.key) && KEYS[event.key];
    if (!action) return;
    event.preventDefault();
    action(event);
  }

  function bind() {
    const on = (target, names, action, options) => names.split(" ").forEach((name) => target.addEventListener(name, action, options));
    on(roll, "pointerdown", press);
    on(roll, "pointermove", move);
    on(roll, "pointerup pointercancel", release);
    on(roll, "pointerleave", (event) => { if (event.pointerType !== "touch") hideTip(); });
    on(roll, "wheel", wheel, { passive: false });
    on(roll, "dblclick", (event) => { if (placeOf(event, roll).x < view.keys) fitPitches(); });
    on(overview, "pointerdown pointermove", scrub);
    on(document, "keydown", key);
    // After a click the space bar plays again, instead of clicking once more.
    on(document, "click", (event) => { if (event.detail && event.target.closest("button:not(#help), label") && !event.target.closest("dialog, .speed")) roll.focus({ preventScroll: true }); });
    document.querySelectorAll("[data-part]").forEach((chip) => on(chip, "click", () => togglePart(chip)));
    document.querySelectorAll("[name=source]").forEach((radio) => on(radio, "change", () => setSource(radio.value)));
    on(byId("play"), "click", toggle);
    on(byId("speed"), "change", () => { audio.playbackRate = Number(byId("speed").value); synth.restart(); });
    on(byId("follow"), "click", () => setFollow(!follow));
    on(byId("spectrogram"), "click", toggleSpectrogram);
    if (melody) on(byId("melody"), "click", toggleMelody);
    on(byId("in"), "click", () => zoom(1.4));
    on(byId("out"), "click", () => zoom(1 / 1.4));
    on(byId("fit"), "click", fit);
    on(byId("help"), "click", () => byId("keys").showModal());
    on(audio, "play pause ended", () => {
      const playing = !audio.paused && !audio.ended;
      press_(byId("play"), playing);
      byId("play").setAttribute("aria-label", playing ? "Pause" : "Play");
      byId("now").setAttribute("aria-live", playing ? "off" : "polite");
      synth.restart();
      wake();
    });
    on(audio, "playing", () => { started = performance.now() / 1000; });
    on(audio, "seeked loadedmetadata", () => { synth.restart(); wake(); });
    on(audio, "error", () => say("This browser cannot play the recording."));
    const repaint = () => { readColours(); resize(); };
    on(matchMedia("(prefers-color-scheme: dark)"), "change", repaint);
    on(matchMedia("print"), "change", repaint);
    on(window, "beforeprint afterprint", repaint);
    on(window, "hashchange", goToHash);
    new ResizeObserver(resize).observe(roll);
  }

  function goToHash() { // page.html#t=12.5 opens at 12.5 s
    const found = /^#t=(\d+(\.\d+)?)$/.exec(location.hash);
    if (found) jump(Number(found[1]));
  }

  readColours();
  Object.assign(view, measure(roll, brush));
  view.keys = view.width < 600 ? 40 : 56;
  view.scale = Math.max(leastScale(), roomWide() / (view.width < 600 ? 8 : 16));
  fitPitches();
  bind();
  resize();
  setTimeout(() => {
    loadRecording();
    audio.addEventListener("loadedmetadata", goToHash, { once: true });
  });
  // What a script may look at, such as a test.
  window.jtm = {
    view, stats, position, seek, draw, audio,
    voices: synth.voices,
    get settled() { return !asked && spectrogram.isThere(); },
    get following() { return follow; },
    get source() { return source; },
  };
})();
