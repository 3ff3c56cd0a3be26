/** What is not on npm: the console's own script, and LiteRT's module that `build.mjs` finds. */
declare module "retinue-console" {
  export const $: (id: string) => any;
  export class ApiError extends Error {
    constructor(code: string, message: string, requestId?: string);
  }
  export function el(tag: string, attributes?: object, ...children: (Node | string | null)[]): any;
  export function getJson(path: string): Promise<any>;
  export function hideProblem(node: HTMLElement): void;
  export function request(path: string, options?: RequestInit): Promise<Response>;
  export function showProblem(node: HTMLElement, error: unknown): void;
}

declare module "litert-module" {
  const factory: (options: object) => Promise<unknown>;
  export default factory;
}
