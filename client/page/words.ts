/** What users read: every error in plain words, and what they can do about it. */
import { type ErrorCode, type GroupNotice, SealcastError } from "../src/index.js";

export interface Plain {
  title: string;
  text: string;
  /** Whether trying the same again makes sense. */
  retry: boolean;
}

const BROKEN: Plain = {
  title: "Something went wrong",
  text: "This page and the relay did not understand each other. Reload the page; if it happens again, tell whoever runs this service, with the code below.",
  retry: true,
};

export const ERROR_WORDS: Record<ErrorCode, Plain> = {
  bad_message: BROKEN,
  unknown_type: BROKEN,
  too_large: BROKEN,
  not_joined: BROKEN,
  already_joined: BROKEN,
  bad_sdp: BROKEN,
  sdp_too_large: BROKEN,
  no_session: BROKEN,
  no_slot: BROKEN,
  mid_in_use: BROKEN,
  protocol_violation: BROKEN,
  internal: {
    title: "The relay has a fault",
    text: "The relay ran into a fault of its own. Your consult was not opened by anybody. Try again in a moment.",
    retry: true,
  },
  rate_limited: {
    title: "Too much at once",
    text: "This page asked the relay for too much in a short time. Wait a few seconds, then join again.",
    retry: true,
  },
  unsupported_version: {
    title: "This page is out of date",
    text: "The relay speaks a newer version than this page. Reload the page to get the current one.",
    retry: true,
  },
  unauthorized: {
    title: "Your invitation was not accepted",
    text: "The relay does not recognise this invitation. Open the link you were sent once more, or ask for a new one.",
    retry: false,
  },
  token_expired: {
    title: "Your invitation has expired",
    text: "Invitations are valid for a limited time. Ask whoever invited you for a new one.",
    retry: false,
  },
  forbidden: {
    title: "You may not do this",
    text: "Your invitation does not allow this. Ask whoever invited you if you should be able to.",
    retry: false,
  },
  wrong_room: {
    title: "This invitation is for another consult",
    text: "The link names one room and the invitation another. Open the link you were sent once more, without changing it.",
    retry: false,
  },
  resume_unknown: {
    title: "You were away for too long",
    text: "The connection was down longer than the relay waits. Join again to return to the consult.",
    retry: true,
  },
  room_full: {
    title: "The consult is full",
    text: "No more people can join at the moment. Try again when somebody has left.",
    retry: true,
  },
  no_track: {
    title: "This is no longer shared",
    text: "The person has stopped sharing it.",
    retry: false,
  },
  codec_unsupported: {
    title: "Your browser cannot show this picture",
    text: "It is sent in a format that your browser does not know. A current Chromium-based browser or Firefox shows it.",
    retry: false,
  },
  limit: {
    title: "A limit is reached",
    text: "The relay does not take more of this. Close what you no longer need, then try again.",
    retry: true,
  },
  busy: {
    title: "The relay is busy",
    text: "It cannot take anybody more at this moment. Try again in a minute.",
    retry: true,
  },
  unsealed: {
    title: "Only sealed media is allowed here",
    text: "This consult takes nothing that is not sealed end to end. Your link may lack its key: open the complete link you were sent.",
    retry: false,
  },
  bad_group: BROKEN,
  going_away: {
    title: "The relay is restarting",
    text: "It will be back shortly. Join again in a moment.",
    retry: true,
  },
  unsupported_browser: {
    title: "This browser cannot seal calls",
    text: "It lacks the interface with which sound and pictures are sealed on your device, and this page never sends them unsealed. Use a current version of Chrome, Edge, Firefox or Safari.",
    retry: false,
  },
  no_key: {
    title: "Your link has no key",
    text: "Without the key nothing can be sealed, so nothing is sent. Open the complete link you were sent.",
    retry: false,
  },
  bad_link: {
    title: "This link is damaged",
    text: "A part of it is missing or was changed on the way. Copy the complete link and open it again.",
    retry: false,
  },
  worker_failed: {
    title: "Sealing could not start",
    text: "The part of this page that seals your call did not start, so nothing was sent. Reload the page.",
    retry: true,
  },
  connection_lost: {
    title: "The relay cannot be reached",
    text: "Check your connection to the internet. If other pages load, the relay may be down for the moment.",
    retry: true,
  },
  timeout: {
    title: "The relay does not answer",
    text: "It took too long to reply. Check your connection, then try again.",
    retry: true,
  },
  media_failed: {
    title: "Sound and pictures do not get through",
    text: "The relay answers, but your network lets no call through, neither over UDP nor over TCP. Another network, or your network's administrator, may help.",
    retry: true,
  },
  removed: {
    title: "You were removed from the consult",
    text: "Whoever leads the consult removed you.",
    retry: false,
  },
  replaced: {
    title: "You continued in another window",
    text: "This consult is open in another tab or window with your invitation; this one was closed.",
    retry: true,
  },
  closed: {
    title: "You have left",
    text: "The consult is closed on this device.",
    retry: true,
  },
};

export function plainError(error: unknown): Plain & { code: string } {
  if (error instanceof SealcastError) return { ...ERROR_WORDS[error.code], code: error.code };
  return { ...BROKEN, code: error instanceof Error ? error.name : "unknown" };
}

/** Why a camera, a microphone or a screen could not be had (`getUserMedia` and its kin). */
export function plainDeviceError(error: unknown, device: string): string {
  const name = error instanceof DOMException ? error.name : "";
  switch (name) {
    case "NotAllowedError":
    case "SecurityError":
      return `Your browser does not let this page use the ${device}. Allow it in the address bar.`;
    case "NotFoundError":
    case "OverconstrainedError":
      return `No ${device} was found. Is it plugged in?`;
    case "NotReadableError":
    case "AbortError":
      return `The ${device} is in use by another program, or it does not respond.`;
    default:
      return `The ${device} could not be started.`;
  }
}

/** What people should know about who is in, or wanted in. `lasting`: it must not vanish by itself. */
export function plainNotice(notice: GroupNotice): { text: string; lasting: boolean } {
  switch (notice.type) {
    case "declined":
      return {
        text: `Somebody without a valid identity tried to join (“${notice.subject.slice(0, 40)}”) and was refused. They cannot see or hear anything.`,
        lasting: true,
      };
    case "commit-refused":
      return { text: "A change of the consult's keys did not follow the rules and was refused.", lasting: false };
    case "group-refused":
      return {
        text: "Somebody in this consult has no valid identity, so this device did not join. Ask whoever invited you.",
        lasting: true,
      };
    case "not-admitted":
      return {
        text: "The others did not let you in: your identity could not be verified. You see and hear nobody, and nobody sees or hears you.",
        lasting: true,
      };
    case "impersonation":
      return {
        text: `Somebody in this consult pretends to be ${guestName(notice.participant)}. Their word was not taken.`,
        lasting: true,
      };
  }
}

/** A pseudonym that people can tell apart, until names arrive sealed. */
export function guestName(participant: string): string {
  return `Guest ${participant.slice(-4).toUpperCase()}`;
}
