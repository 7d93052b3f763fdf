"use strict";
for (const sample of document.querySelectorAll(".sample")) {
  const audio = sample.querySelector("audio"), strip = sample.querySelector(".strip");
  if (!audio || !strip) continue;
  const cursor = strip.querySelector(".cursor"), frame = strip.parentElement, seconds = Number(strip.dataset.seconds);
  const draw = () => {
    const left = audio.currentTime / seconds * strip.clientWidth;
    cursor.style.display = "block";
    cursor.style.left = left + "px";
    if (!audio.paused) {
      if (left < frame.scrollLeft || left > frame.scrollLeft + frame.clientWidth - 20) frame.scrollLeft = left - 20;
      requestAnimationFrame(draw);
    }
  };
  for (const event of ["play", "seeked"]) audio.addEventListener(event, draw);
  audio.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
  });
  strip.style.cursor = "pointer";
  strip.addEventListener("click", event => {
    audio.currentTime = (event.clientX - strip.getBoundingClientRect().left) / strip.clientWidth * seconds;
  });
}
