// Runs only where modules do not.
document.addEventListener("DOMContentLoaded", function () {
  var error = document.getElementById("error");
  error.hidden = false;
  error.textContent = "This browser is too old for this page. A current Chrome, Edge, Firefox or Safari works.";
  document.getElementById("state").textContent = "Not supported";
});
