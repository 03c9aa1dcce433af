/** Who is in the consult, whether the issuer vouches for them, and the code to compare by voice. */
import type { GroupSnapshot, MemberSnapshot } from "../src/index.js";
import { dialog } from "./dialogs.js";
import { el, fill } from "./dom.js";
import { icon } from "./icons.js";
import { guestName } from "./words.js";

export class PeopleDialog {
  readonly element: HTMLDialogElement;
  readonly #read: () => GroupSnapshot | undefined;
  readonly #body = el("div", { class: "people" });
  #drawn = "";

  constructor(read: () => GroupSnapshot | undefined) {
    this.#read = read;
    this.element = dialog("people-title", "Who is in", [this.#body]);
    this.update();
  }

  /** Draws the group as it is now. */
  update(): void {
    const group = this.#read();
    const state = JSON.stringify(group ?? null);
    if (state === this.#drawn) return;
    this.#drawn = state;
    if (!group || group.epoch < 0) {
      fill(this.#body, el("p", { class: "muted" }, "Waiting to be let in by the others."));
      return;
    }
    fill(
      this.#body,
      el("ul", { class: "people-list" }, ...group.members.map(person)),
      group.code === null ? undefined : codeSection(group.code),
    );
  }
}

/** A member's name for the page: its own word, or a number. */
export function memberName({ name, own, participant, subject }: MemberSnapshot): string {
  const shown = name ?? (participant === null ? subject.slice(0, 40) : guestName(participant));
  return own ? `${shown} (you)` : shown;
}

/** What is known about a member's identity, in a few words. */
export function identityWords({ verified, nameVerified, name }: MemberSnapshot): string {
  if (!verified) return "Not verified";
  if (nameVerified) return "Verified";
  return name === null ? "Verified, no name" : "Verified; the name is their own word";
}

function person(member: MemberSnapshot): HTMLElement {
  const state = !member.verified ? "unverified" : member.nameVerified ? "verified" : "unnamed";
  return el(
    "li",
    { class: "person", "data-member": String(member.leaf), "data-identity": state },
    icon(member.verified ? "verified" : "alert"),
    el("span", { class: "person-name" }, memberName(member)),
    el("span", { class: "person-identity", title: member.reason ?? "" }, identityWords(member)),
  );
}

function codeSection(code: string): HTMLElement {
  return el(
    "section",
    { class: "code-section" },
    el("h3", {}, "Compare this code"),
    el("p", { class: "code", "data-digits": code }, ...code.split(" ").map((group) => el("span", {}, group))),
    el(
      "p",
      { class: "muted" },
      "Read it to each other. If everybody has the same digits, nobody is listening in who is not in this list. " +
        "It changes whenever somebody joins or leaves.",
    ),
  );
}
