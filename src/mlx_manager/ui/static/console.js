// What the server cannot do: the clipboard, the cookie that remembers the theme, files that are pasted or dropped.
window.mlxManager = {
  copy(text, button) {
    const done = () => {
      if (!button) return;
      const label = button.getAttribute("aria-label");
      button.setAttribute("aria-label", "Copied");
      button.classList.add("copied");
      setTimeout(() => { button.setAttribute("aria-label", label); button.classList.remove("copied"); }, 1500);
    };
    // over http only this machine's own address has a clipboard
    if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text).then(done);
    const area = Object.assign(document.createElement("textarea"), { value: text });
    area.style.position = "fixed";
    // a dialog takes the focus back from whatever lies outside it, and nothing would be selected
    ((button && button.closest(".dialog")) || document.body).append(area);
    area.select();
    const isCopied = document.execCommand("copy");
    area.remove();
    if (button) button.focus();
    if (isCopied) done();
  },
  remember(name, value) {
    document.cookie = `${name}=${value}; path=/; max-age=31536000; SameSite=Strict`;
  },
  async logOut() {
    // the server sends a page away whose session is over: before the answer is here, that would cut it off
    window.socket.off("disconnect").disconnect();
    mlxManager.dropDraft();
    await (await fetch("/auth/logout", { method: "POST" })).text();
    location.assign("/login");
  },
  // passwords go from their fields to the API, and the new session comes back as a cookie that scripts cannot read
  async changePassword(oldId, newId) {
    const answer = await fetch("/auth/password", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({
        old_password: document.getElementById(oldId).value, new_password: document.getElementById(newId).value,
      }),
    });
    return answer.ok ? "" : (await answer.json()).error.message;
  },
  // files of a paste or a drop on `zone` go to the uploader
  takeFiles(zoneId, uploaderId) {
    const zone = document.getElementById(zoneId);
    if (!zone || zone.dataset.takesFiles) return;
    zone.dataset.takesFiles = "1";
    const add = (files) => getElement(uploaderId).$refs.qRef.addFiles(files);
    zone.addEventListener("paste", (event) => {
      if (event.clipboardData && event.clipboardData.files.length) { event.preventDefault(); add(event.clipboardData.files); }
    });
    zone.addEventListener("dragover", (event) => { event.preventDefault(); zone.classList.add("dropping"); });
    zone.addEventListener("dragleave", (event) => {
      if (!zone.contains(event.relatedTarget)) zone.classList.remove("dropping");
    });
    zone.addEventListener("drop", (event) => {
      event.preventDefault();
      zone.classList.remove("dropping");
      if (event.dataTransfer.files.length) add(event.dataTransfer.files);
    });
  },
  // what is written and not sent outlives a reload, in this tab and until somebody logs out
  restoreDraft(id) {
    const area = document.getElementById(id);
    const kept = sessionStorage.getItem("mlxManagerDraft");
    if (!area || !kept || area.value) return;
    area.value = kept;
    area.dispatchEvent(new Event("input"));
  },
  dropDraft() {
    sessionStorage.removeItem("mlxManagerDraft");
  },
  goToEnd(id) {
    const list = document.getElementById(id);
    const go = () => { list.scrollTop = list.scrollHeight; };
    // what is to be seen arrives with the next messages
    for (const wait_ms of [0, 100, 300]) setTimeout(go, wait_ms);
  },
  // a list that grows at its end stays there, unless somebody has scrolled up
  follow(id) {
    const list = document.getElementById(id);
    if (!list || list.dataset.follows) return;
    list.dataset.follows = "1";
    let isAtEnd = true;
    list.addEventListener("scroll", () => { isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 60; });
    const stay = () => { if (isAtEnd) list.scrollTop = list.scrollHeight; };
    new MutationObserver(() => { stay(); requestAnimationFrame(stay); })
      .observe(list, { childList: true, subtree: true, characterData: true });
    stay();
  },
};
document.addEventListener("input", (event) => {
  if (event.target.matches(".composer textarea")) sessionStorage.setItem("mlxManagerDraft", event.target.value);
});
document.addEventListener("click", (event) => {
  const button = event.target.closest && event.target.closest("[data-copy-code]");
  if (button) window.mlxManager.copy(button.closest(".code").querySelector("pre").textContent, button);
  const copied = event.target.closest && event.target.closest("[data-copy-text]");
  if (copied) window.mlxManager.copy(copied.dataset.copyText, copied);
  const turn = event.target.closest && event.target.closest("[data-turn-do]");
  if (turn) {
    const detail = { action: turn.dataset.turnDo, turn: turn.dataset.turn };
    turn.closest(".turns").dispatchEvent(new CustomEvent("turn-do", { detail }));
  }
});
