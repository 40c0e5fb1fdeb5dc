// Numbers where a figure is pointed at or touched, a button that copies, and folded parts opened for print.
// Without it, titles of the strips show the same numbers, and the command can be selected.
const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
document.body.append(tip);

for (const title of document.querySelectorAll(".hit > title")) {
  title.parentElement.dataset.tip = title.textContent;
  title.remove();
}

const follow = (event) => {
  const text = event.target instanceof Element && event.target.dataset.tip;
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const { offsetWidth: width, offsetHeight: height } = tip;
  const left = Math.min(Math.max(event.clientX - width / 2, 8), document.documentElement.clientWidth - width - 8);
  const above = event.clientY - height - 16;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 8 ? above : event.clientY + 20}px`;
};
for (const name of ["pointermove", "pointerdown"]) document.addEventListener(name, follow);
document.addEventListener("pointerleave", () => { tip.hidden = true; });
document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}

addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
});
