/* How a page is given a file: chosen by its button, dropped anywhere on it, or pasted. */

/** Call `take` with each file that the reader gives: of several the first whose type begins with `kind`, or else the first. */
export function takeFiles(take, kind) {
  const button = document.getElementById("file");
  const given = ({ files }) => take([...files].find(({ type }) => type.startsWith(kind)) ?? files[0]);
  const dragged = (event) => event.dataTransfer.types.includes("Files"); // text may be dragged, too
  button.addEventListener("change", () => {
    given(button);
    button.value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("paste", (event) => event.clipboardData.files.length && given(event.clipboardData));
  document.addEventListener("dragover", (event) => {
    if (!dragged(event)) return;
    event.preventDefault();
    document.body.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    if (!dragged(event)) return;
    event.preventDefault();
    document.body.classList.remove("over");
    given(event.dataTransfer);
  });
}
