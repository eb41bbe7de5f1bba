// News of the jobs as it happens.

/**
 * Call `told` with all jobs, now and whenever something changes; a page that is not seen listens to nothing, because a browser has
 * only a few connections to a server.
 * @param {(all: any) => void} told
 * @param {(lost: boolean) => void} [broken]
 * @returns {() => void} ends it
 */
export function listen(told, broken = () => {}) {
  /** @type {EventSource | null} */
  let source = null;
  const open = () => {
    if (source || document.hidden) return;
    source = new EventSource("/api/jobs/events");
    source.onopen = () => broken(false);
    source.onmessage = (event) => told(JSON.parse(event.data));
    source.onerror = () => broken(true); // It tries again by itself.
  };
  const close = () => {
    source?.close();
    source = null;
  };
  const turn = () => (document.hidden ? close() : open());
  document.addEventListener("visibilitychange", turn);
  addEventListener("pagehide", close);
  addEventListener("pageshow", open);
  open();
  return () => {
    document.removeEventListener("visibilitychange", turn);
    removeEventListener("pagehide", close);
    removeEventListener("pageshow", open);
    close();
  };
}
