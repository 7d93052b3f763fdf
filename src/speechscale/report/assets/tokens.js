"use strict";
(function () {
const SPEECH = "#d1603d", TEXT = "#3b6fb6", SOFT = "#5b6875", LINE = "#dfe4ea";
const AXIS = 16, WORDS = 22, WAVE = 96, UNITS = 24, SPANS = 18, GAP = 6;
const tip = document.getElementById("tip");
let context = null, playing = [];

function bytes(base64) { return Uint8Array.from(atob(base64), c => c.charCodeAt(0)); }

function stop() {
  for (const node of playing) { try { node.stop(); } catch (e) { /* it has ended */ } }
  playing = [];
  document.querySelectorAll(".playing").forEach(e => e.classList.remove("playing"));
  document.querySelectorAll("audio").forEach(a => a.pause());
}

class View {
  constructor(section) {
    this.section = section;
    this.canvas = section.querySelector("canvas");
    this.data = JSON.parse(section.querySelector("script").textContent);
    this.audio = section.querySelector("audio");
    this.slider = section.querySelector("input");
    this.total = this.data.frames / this.data.rate;
    this.peaks = this.data.peaks ? new Int8Array(bytes(this.data.peaks).buffer) : null;
    this.start = 0;
    this.length = Math.min(this.total, 4.5);
    this.buffer = null;
    section.addEventListener("click", e => this.click(e));
    this.canvas.addEventListener("mousemove", e => this.hover(e));
    this.canvas.addEventListener("mouseleave", () => { tip.style.display = "none"; });
    this.canvas.addEventListener("wheel", e => {
      if (!e.ctrlKey && !e.shiftKey) return;
      e.preventDefault();
      this.move(this.start + this.length * 0.15 * Math.sign(e.deltaY));
    }, { passive: false });
    this.slider.addEventListener("input", () => { this.move(this.slider.value / 1000 * (this.total - this.length)); });
    if (this.audio) this.audio.addEventListener("timeupdate", () => this.follow());
    window.addEventListener("resize", () => this.draw());
    this.draw();
  }
  x(second) { return (second - this.start) / this.length * this.canvas.clientWidth; }
  second(x) { return this.start + x / this.canvas.clientWidth * this.length; }
  move(start) {
    this.start = Math.max(0, Math.min(start, this.total - this.length));
    this.slider.value = this.total > this.length ? this.start / (this.total - this.length) * 1000 : 0;
    this.draw();
  }
  zoom(factor) {
    const middle = this.start + this.length / 2;
    this.length = Math.max(0.2, Math.min(this.total, this.length * factor));
    this.move(middle - this.length / 2);
  }
  follow() {
    const now = this.audio.currentTime;
    if (!this.audio.paused && (now < this.start || now > this.start + this.length)) this.move(now); else this.draw();
  }
  draw() {
    const scale = window.devicePixelRatio || 1, width = this.canvas.clientWidth, rate = this.data.rate;
    const wave = this.peaks ? WAVE : 0;
    const height = AXIS + WORDS + wave + UNITS + SPANS + 4 * GAP;
    this.canvas.width = width * scale; this.canvas.height = height * scale; this.canvas.style.height = height + "px";
    const g = this.canvas.getContext("2d");
    g.scale(scale, scale); g.clearRect(0, 0, width, height);
    this.lanes = { words: AXIS, wave: AXIS + WORDS + GAP, units: AXIS + WORDS + wave + 2 * GAP,
      spans: AXIS + WORDS + wave + UNITS + 3 * GAP, height };
    const seen = (a, b) => b > this.start && a < this.start + this.length;
    for (const span of this.data.spans) {
      if (span.b <= span.a || !seen(span.a / rate, span.b / rate)) continue;
      const a = this.x(span.a / rate), b = this.x(span.b / rate);
      g.fillStyle = span.speech ? "#d1603d22" : "#3b6fb616"; g.fillRect(a, AXIS, b - a, height - AXIS - GAP);
      g.fillStyle = span.speech ? SPEECH : TEXT; g.fillRect(a, this.lanes.spans, b - a, 3);
      this.label(g, span.speech ? "heard" : "read", a, b, this.lanes.spans + 14, "11px system-ui");
    }
    this.axis(g, width);
    if (wave) this.wave(g, width);
    for (const [unit, a, b, spans] of this.data.units) {
      if (!seen(a / rate, b / rate)) continue;
      const left = this.x(a / rate), right = this.x(b / rate);
      g.fillStyle = spans > 1 ? "#e79a7f" : spans ? "#f6d5c8" : "#eef0f3";
      g.fillRect(left, this.lanes.units, right - left, UNITS);
      g.strokeStyle = "#fff"; g.lineWidth = 1; g.strokeRect(left, this.lanes.units, right - left, UNITS);
      g.fillStyle = spans ? "#5f2410" : SOFT;
      const size = right - left > 16 ? 11 : 9;
      this.label(g, String(unit), left, right, this.lanes.units + 16, size + "px ui-monospace, monospace", true);
    }
    for (const word of this.data.words) {
      if (word.a === null || !seen(word.a, word.b)) continue;
      const left = this.x(word.a), right = this.x(word.b);
      g.strokeStyle = word.heard ? SPEECH : TEXT; g.globalAlpha = 0.45; g.lineWidth = 1; g.beginPath();
      for (const x of [left, right]) { g.moveTo(x, AXIS + WORDS - 3); g.lineTo(x, this.lanes.units); }
      g.stroke(); g.globalAlpha = 1;
      g.fillStyle = word.demoted ? "#a8122b" : word.heard ? SPEECH : TEXT;
      g.fillRect(left, AXIS + WORDS - 3, Math.max(1, right - left), 2);
      this.label(g, word.text, left, right, AXIS + 14, "12px system-ui");
    }
    const now = this.audio && this.audio.currentTime;
    if (now) { g.fillStyle = "#1d2733"; g.fillRect(this.x(now), AXIS, 1.5, height - AXIS); }
  }
  label(g, text, left, right, y, font, inside) {
    g.font = font;
    const width = g.measureText(text).width, room = right - left;
    if (inside && width > room) return;
    g.save();
    if (!inside && width > room) { g.beginPath(); g.rect(left, y - 16, Math.max(room, 6), 22); g.clip(); }
    g.fillText(text, inside ? (left + right - width) / 2 : Math.max(left, 0) + 1, y);
    g.restore();
  }
  axis(g, width) {
    const steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300];
    const step = steps.find(s => s / this.length * width > 60) || 600;
    g.fillStyle = SOFT; g.font = "10px system-ui"; g.strokeStyle = LINE; g.lineWidth = 1;
    for (let k = Math.ceil(this.start / step); k * step < this.start + this.length; k++) {
      const x = this.x(k * step);
      g.beginPath(); g.moveTo(x, 0); g.lineTo(x, AXIS - 2); g.stroke();
      g.fillText((k * step).toFixed(step < 0.1 ? 2 : step < 1 ? 1 : 0) + " s", x + 3, 11);
    }
  }
  wave(g, width) {
    const middle = this.lanes.wave + WAVE / 2, per = this.data.peakRate;
    g.fillStyle = "#5b6875";
    for (let x = 0; x < width; x++) {
      const first = Math.floor(this.second(x) * per), last = Math.max(first + 1, Math.floor(this.second(x + 1) * per));
      let low = 127, high = -127;
      for (let i = first; i < last && 2 * i + 1 < this.peaks.length; i++) {
        low = Math.min(low, this.peaks[2 * i]); high = Math.max(high, this.peaks[2 * i + 1]);
      }
      if (high < low) continue;
      const top = middle - high / 127 * WAVE / 2, bottom = middle - low / 127 * WAVE / 2;
      g.fillRect(x, top, 1, Math.max(1, bottom - top));
    }
  }
  hover(event) {
    const box = this.canvas.getBoundingClientRect(), t = this.second(event.clientX - box.left), rate = this.data.rate;
    const lines = [t.toFixed(3) + " s, frame " + Math.floor(t * rate)];
    const unit = this.data.units.find(u => u[1] / rate <= t && t < u[2] / rate);
    if (unit) lines.push("unit " + unit[0] + ": frames " + unit[1] + ".." + unit[2] + " (" + (unit[2] - unit[1]) + ")"
      + (unit[3] ? unit[3] > 1 ? ", in " + unit[3] + " spans" : "" : ", in no span"));
    for (const w of this.data.words) if (w.a !== null && w.a <= t && t < w.b) lines.push(w.hint);
    tip.textContent = lines.join("\n");
    tip.style.display = "block";
    tip.style.left = Math.min(event.clientX + 14, window.innerWidth - 260) + "px";
    tip.style.top = event.clientY + 16 + "px";
  }
  async decoded() {
    if (!context) context = new AudioContext({ sampleRate: this.data.sampleRate });
    await context.resume();
    if (!this.buffer) this.buffer = await context.decodeAudioData(bytes(this.audio.src.split(",")[1]).buffer);
    return this.buffer;
  }
  schedule(index, at) {
    const span = this.data.spans[index], node = context.createBufferSource(), from = span.a / this.data.rate;
    node.buffer = this.buffer; node.connect(context.destination);
    node.start(at, from, span.b / this.data.rate - from);
    const shown = this.section.querySelector(`.span[data-span="${index}"]`);
    setTimeout(() => shown.classList.add("playing"), Math.max(0, (at - context.currentTime) * 1000));
    node.onended = () => shown.classList.remove("playing");
    playing.push(node);
    return (span.b - span.a) / this.data.rate;
  }
  tone(at) {
    const node = context.createOscillator(), quiet = context.createGain();
    quiet.gain.value = 0.05; node.frequency.value = 440; node.connect(quiet).connect(context.destination);
    node.start(at); node.stop(at + 0.15); playing.push(node);
    return 0.25;
  }
  async click(event) {
    const what = event.target.dataset && event.target.dataset.do;
    if (what === "in") this.zoom(0.5);
    if (what === "out") this.zoom(2);
    if (what === "all") { this.length = this.total; this.move(0); }
    if (what === "stop") stop();
    if (event.target === this.canvas && this.audio) {
      this.audio.currentTime = this.second(event.clientX - this.canvas.getBoundingClientRect().left); this.draw();
    }
    if (what !== "span" && what !== "model") return;
    stop();
    await this.decoded();
    let at = context.currentTime + 0.05;
    if (what === "span") { this.schedule(Number(event.target.dataset.span), at); return; }
    this.data.spans.forEach((span, index) => { at += span.speech ? span.b > span.a ? this.schedule(index, at) : 0 : this.tone(at); });
  }
}
document.querySelectorAll("section").forEach(s => { if (s.querySelector("canvas")) new View(s); });
})();
