/* The vote below a result: up or down, a few words, and the picture if its owner ticks that. */

const $ = (id) => document.getElementById(id);
let voted = null; // { request, file } of the result that is shown

/** Offer a vote on the answer to `request`; a server without feedback names none. */
export function offerVote(request, file, feedback) {
  voted = { request, file };
  $("vote").hidden = !request || !feedback;
  if ($("vote").hidden) return;
  $("consent").textContent = `Keep my picture for ${feedback.days} days, without its EXIF data, for people who improve the models`;
  $("keep").checked = false; // for each picture anew
  $("words").value = $("voted").textContent = "";
  offer(true);
}

function offer(open) {
  for (const id of ["up", "down", "keep", "words"]) $(id).disabled = !open;
  $("forget").hidden = true;
}

async function send(path, options) {
  const answer = await fetch(path, options).catch(() => null);
  if (answer?.ok) return answer.status === 204 ? {} : answer.json();
  throw new Error(answer ? await answer.json().then((body) => body.error, () => `The server failed (${answer.status}).`) : "The server does not answer.");
}

async function vote(event) {
  const mine = voted;
  const { request, file } = mine;
  offer(false);
  const kept = $("keep").checked;
  let said = "Thank you.";
  try {
    const body = JSON.stringify({ request, vote: event.target.value, words: $("words").value });
    await send("feedback", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  } catch (error) {
    if (mine === voted) (offer(true), ($("voted").textContent = error.message));
    return;
  }
  if (kept) {
    try {
      const { expires } = await send(`feedback/${request}/picture`, { method: "PUT", body: file });
      said += ` The picture is kept until ${new Date(1000 * expires).toLocaleDateString()}.`;
    } catch (error) {
      said += ` The picture is not kept: ${error.message}`;
    }
  }
  if (mine !== voted) return; // another result is shown
  $("voted").textContent = said;
  $("forget").textContent = kept ? "Delete my vote and picture" : "Delete my vote";
  $("forget").hidden = false;
}

async function forget() {
  const mine = voted;
  $("forget").hidden = true;
  const said = await send(`feedback/${mine.request}`, { method: "DELETE" }).then(() => "It is deleted.", (error) => error.message);
  if (mine === voted) $("voted").textContent = said;
}

$("up").addEventListener("click", vote);
$("down").addEventListener("click", vote);
$("forget").addEventListener("click", forget);
$("vote").addEventListener("submit", (event) => event.preventDefault()); // Enter in the words is no vote
