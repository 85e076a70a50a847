// A clip plays in its card: silently under the pointer; on click, Enter or Space with sound and controls. Escape ends it.
// Without this script the poster is a plain link to the clip.
for (const link of document.querySelectorAll("a.play")) {
  const frame = link.parentElement;
  const playing = () => frame.querySelector("video");
  const close = () => playing()?.remove();

  const open = () => {
    const video = playing() ?? document.createElement("video");
    if (video.isConnected) return video;
    video.src = link.href;
    video.loop = video.playsInline = video.muted = true;
    video.addEventListener("error", close);
    frame.append(video);
    return video;
  };

  const play = (video) => video.play().catch(() => {}); // removed before it began

  link.setAttribute("role", "button");
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const video = open();
    if (video.controls && !video.paused) return video.pause();
    video.controls = true;
    video.muted = false;
    for (const other of document.querySelectorAll("video")) if (other !== video) other.pause();
    play(video);
  });
  frame.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      close();
      link.focus();
    }
    if (event.key === " " && event.target === link) {
      event.preventDefault();
      link.click();
    }
  });
  frame.addEventListener("pointerenter", (event) => {
    if (event.pointerType === "mouse" && !playing()) play(open());
  });
  frame.addEventListener("pointerleave", () => {
    if (playing()?.controls === false) close();
  });
}
