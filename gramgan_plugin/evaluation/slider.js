const cut = document.getElementById("cut");
cut.addEventListener("input", () => stack.style.setProperty("--cut", cut.value + "%"));
document.getElementById("zoom").addEventListener("change", (event) =>
  stack.style.setProperty("--zoom", event.target.value));
stack.addEventListener("pointermove", (event) => {
  if (event.buttons !== 1) return;
  const box = stack.getBoundingClientRect();
  cut.value = 100 * (event.clientX - box.left) / box.width;
  cut.dispatchEvent(new Event("input"));
});
stack.addEventListener("dragstart", (event) => event.preventDefault());
