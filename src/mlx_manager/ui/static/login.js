// The forms of the login page: the API answers them, and sets the cookie that scripts cannot read.
const theme = document.documentElement.dataset.theme;
const isDark = theme === "dark" || (theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
document.body.classList.toggle("body--dark", isDark);
const form = document.getElementById("form");
const say = (words, tone) => {
  const said = document.getElementById("said");
  said.textContent = words;
  said.className = `note ${tone}`;
  said.hidden = false;
};
if (form) form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const answer = await fetch(`/auth/${form.dataset.action}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ name: form.elements.name.value, password: form.elements.password.value }),
    });
    const body = await answer.json();
    if (!answer.ok) say(body.error.message, "bad");
    else if (answer.status === 202) say(body.message, "info");
    else location.assign(document.body.dataset.next);
  } catch {
    say("The server cannot be reached. Is it running?", "bad");
  } finally {
    button.disabled = false;
  }
});
