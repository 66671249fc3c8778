// Says that an answer is under way: an explanation takes seconds. Without this script the page works too.
const button = document.querySelector("button");
const label = button.textContent;
const status = document.querySelector("#status");

document.querySelector("form").addEventListener("submit", () => {
  button.disabled = true;
  button.textContent = status.textContent = "Predicting…";
});

// A browser may show the page again as it left it.
addEventListener("pageshow", () => {
  button.disabled = false;
  button.textContent = label;
  status.textContent = "";
});
