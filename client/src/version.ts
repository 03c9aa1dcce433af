declare const SEALCAST_VERSION: string;

/** The package's version, which the build puts in. */
export const VERSION: string = typeof SEALCAST_VERSION === "string" ? SEALCAST_VERSION : "0.0.0-dev";
