export { compilePattern } from "../triggers/pattern.ts";
