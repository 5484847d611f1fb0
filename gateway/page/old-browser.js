// This script runs only in browsers that know no modules, so it is written in their old language.
document.addEventListener("DOMContentLoaded", function () {
  var error = document.getElementById("error");
  var state = document.getElementById("state");
  if (error) {
    error.hidden = false;
    error.textContent = "This browser is too old for this page. A current Chrome, Edge, Firefox or Safari works.";
  }
  if (state) state.textContent = "Not supported";
});
