/** Something that a person can do something about; its message says what. */
export class Trouble extends Error {}
