// Puts what the server sends in its place. The text is the server's own, escaped there.
"use strict";
const place = document.getElementById("live");
const lost = document.getElementById("lost");
const source = new EventSource(place.dataset.events);
source.addEventListener("live", (event) => { place.innerHTML = event.data; lost.hidden = true; });
source.addEventListener("error", () => { lost.hidden = false; });
