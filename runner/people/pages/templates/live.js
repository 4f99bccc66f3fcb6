// Puts what the server sends in its place. The text is the server's own, escaped there.
"use strict";
const lost = document.getElementById("lost");
let source = null;
function listen() {
  source = new EventSource(document.getElementById("live").dataset.events);
  for (const part of ["now", "plot", "rest"]) {
    source.addEventListener(part, (event) => {
      document.getElementById(part).innerHTML = event.data;
      lost.textContent = "";
    });
  }
  source.addEventListener("said", (event) => { lost.textContent = event.data; source.close(); });
  source.addEventListener("error", () => { lost.textContent = "The server does not answer: what is shown may be old."; });
}
// A browser has few connections to a server: a page that nobody looks at gives its own back.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) source.close(); else listen();
});
listen();
