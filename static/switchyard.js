// Small helps around htmx. Every page works without them.
"use strict";

(() => {
  const find = (selector, root = document) => root.querySelector(selector);
  const panel = () => find("#panel");

  // -- Times: in the viewer's zone, with the plan's own on hover.
  const toMinute = { hour: "2-digit", minute: "2-digit" };
  const day = { day: "numeric", month: "short" };
  function showTime(moment, onlyMinutes) {
    const today = moment.toDateString() === new Date().toDateString();
    const parts = { ...(today ? {} : day), ...toMinute, ...(onlyMinutes ? {} : { second: "2-digit" }) };
    return new Intl.DateTimeFormat("en-GB", parts).format(moment).replace(",", "");
  }
  function showTimes(root) {
    for (const time of root.querySelectorAll("time[datetime]:not([data-shown])")) {
      time.textContent = showTime(new Date(time.dateTime), time.dataset.to === "minute");
      time.dataset.shown = "";
    }
  }

  // -- The pulse: how old is what this page shows.
  let lastSeen = performance.now();
  const LATE = 6;
  function beat() {
    const pulse = find("#pulse");
    if (!pulse) return;
    const seconds = Math.round((performance.now() - lastSeen) / 1000);
    const late = seconds > LATE;
    pulse.textContent = late ? `Reconnecting: data ${seconds} s old` : `Live, ${seconds} s ago`;
    pulse.classList.toggle("loud", late);
  }
  function refreshNow() {
    const live = find("#live");
    if (live) htmx.trigger(live, "refresh");
  }

  // -- What a poll cannot swap (forms) is shown anew when nobody is in the middle of something.
  function busy() {
    const written = [...panel().querySelectorAll("input:not([type=hidden]), textarea")].some((field) => field.value);
    return written || find("dialog[open]") || find("button:active, a:active, :focus:is(input, textarea, select)", panel());
  }
  function showPanel() {
    htmx.ajax("GET", panel().dataset.self, { target: "#panel", swap: "outerHTML" });
  }
  function compareTokens() {
    const token = find("#token")?.dataset.token;
    if (!token || !panel()?.dataset.token || token === panel().dataset.token) return;
    if (find(".htmx-request")) return;
    if (busy()) find("#changed")?.removeAttribute("hidden");
    else showPanel();
  }

  // -- Notices for what never reached a view.
  function tell(title, text) {
    const place = find("#notices");
    const box = document.createElement("div");
    const words = document.createElement("p");
    const strong = document.createElement("b");
    box.className = "notice loud";
    strong.textContent = title;
    words.append(strong, ` ${text}`);
    box.append(words);
    place.replaceChildren(box);
    box.scrollIntoView({ block: "nearest" });
  }

  // -- Values of a chart: under the pointer, or by the arrow keys.
  function read(plot, wanted) {
    const rows = [...plot.closest("figure").querySelectorAll("tr[data-x]")];
    const row = rows[Math.max(0, Math.min(wanted(rows), rows.length - 1))];
    const reader = find(".reader", plot);
    plot.dataset.row = rows.indexOf(row);
    reader.setAttribute("d", `M${row.dataset.x} 0V100`);
    reader.removeAttribute("hidden");
    find("output", plot).textContent = row.dataset.words;
  }
  document.addEventListener("pointermove", (event) => {
    const plot = event.target.closest?.("[data-plot]");
    if (!plot) return;
    const box = find("svg", plot).getBoundingClientRect();
    const x = (1000 * (event.clientX - box.left)) / box.width;
    const off = (row) => Math.abs(row.dataset.x - x);
    read(plot, (rows) => rows.reduce((best, row, index) => (off(row) < off(rows[best]) ? index : best), 0));
  });
  document.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const plot = event.target.closest?.("[data-plot]");
    if (!plot || !step) return;
    event.preventDefault();
    read(plot, (rows) => (plot.dataset.row === undefined ? rows.length - 1 : Number(plot.dataset.row) + step));
  });

  // -- Focus and half-read notices survive a swap of the panel.
  let trail = [];
  let kept = null;
  let swappedAt = -Infinity;

  document.addEventListener("htmx:beforeSwap", (event) => {
    const { xhr, target, requestConfig, shouldSwap } = event.detail;
    const foreign = shouldSwap && target === panel() && !xhr.responseText.includes('id="panel"');
    if (foreign || /^\s*<!doctype/i.test(xhr.responseText)) {
      // Neither a whole page nor a bare line goes into a panel: it is somebody else's answer (a proxy's).
      event.detail.shouldSwap = false;
      tell("The answer was not from Switchyard.", "Load the page again to see what is true now.");
      return;
    }
    // The past is not swapped away under somebody who reads it.
    if (target.id === "past" && find("details[open], :focus, :hover", target)) event.detail.shouldSwap = false;
    if (target !== panel()) return;
    trail = [];
    for (let node = document.activeElement; node && node !== document.body; node = node.parentElement) {
      if (node.id) trail.push(node.id);
    }
    kept = requestConfig.verb === "get" ? find("#outcome") : null;
    if (requestConfig.verb !== "get") find("#notices").replaceChildren();
  });

  // What a poll brings unchanged stays: a click that is half done, the focus and a selection with it.
  document.addEventListener("htmx:oobBeforeSwap", (event) => {
    const { target, fragment } = event.detail;
    const fresh = fragment.firstElementChild;
    const same = fresh?.dataset.same !== undefined && fresh.dataset.same === target.dataset.same;
    if (same || (fresh?.querySelector("a, button") && fresh.innerHTML === target.innerHTML)) event.detail.shouldSwap = false;
  });

  document.addEventListener("htmx:afterSettle", (event) => {
    showTimes(document);
    if (event.target !== panel()) return;
    swappedAt = performance.now();
    const outcome = find("#outcome");
    if (kept && !outcome) find("#changed")?.after(kept);
    kept = null;
    if (outcome) {
      if (!outcome.classList.contains("loud")) find("#announce").textContent = outcome.textContent.trim();
      outcome.scrollIntoView({ block: "nearest" });
    }
    if (document.activeElement === document.body) {
      for (const id of [...trail, "outcome", "main"]) {
        document.getElementById(id)?.focus({ preventScroll: true });
        if (document.activeElement !== document.body) break;
      }
    }
  });

  document.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.elt.id === "live" && event.detail.successful) {
      lastSeen = performance.now();
      beat();
      find("#gateway-chip")?.classList.toggle("loud", find("#gateway-state")?.dataset.loud === "yes");
      compareTokens();
    } else if (event.detail.elt.id !== "live" && event.detail.successful) {
      lastSeen = performance.now();
      refreshNow();
    }
  });

  for (const kind of ["htmx:sendError", "htmx:timeout", "htmx:responseError"]) {
    document.addEventListener(kind, (event) => {
      if (event.detail.elt.id === "live") return;
      tell(
        "No answer from the dashboard.",
        "It is not known whether this was carried out. The page shows what is true as soon as it answers again.",
      );
    });
  }

  // -- The second half of a double click must not hit what has just appeared under the pointer.
  let lastClick = { at: -Infinity, x: 0, y: 0 };
  document.addEventListener("click", (event) => {
    if (event.detail > 0) {
      const still = Math.hypot(event.clientX - lastClick.x, event.clientY - lastClick.y) < 12;
      const second = still && event.timeStamp - lastClick.at < 1000 && swappedAt > lastClick.at;
      lastClick = { at: event.timeStamp, x: event.clientX, y: event.clientY };
      if (second && event.target.closest("button")) {
        event.preventDefault();
        event.stopImmediatePropagation();
        return;
      }
    }
    if (event.target.closest("[data-close]")) event.target.closest("dialog").close();
    if (event.target.closest("#show-change")) showPanel();
  }, true);
  document.addEventListener("keydown", (event) => {
    if (event.repeat && event.key === "Enter" && event.target.closest("button")) event.preventDefault();
  }, true);

  // -- A question on a page of its own becomes a dialog.
  document.addEventListener("submit", (event) => {
    const dialog = document.getElementById(event.target.dataset.dialog ?? "");
    if (!dialog) return;
    event.preventDefault();
    dialog.showModal();
  });

  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refreshNow(); });
  setInterval(beat, 1000);
  showTimes(document);
})();
