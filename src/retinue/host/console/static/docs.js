import { $, getJson, showProblem, storedKey } from "/static/app.js";

/** Copy a JSON schema with 3.1's numeric exclusive bounds written as 3.0 has them. */
function downgrade(value) {
  if (Array.isArray(value)) return value.map(downgrade);
  if (value === null || typeof value !== "object") return value;
  const copy = {};
  for (const [name, item] of Object.entries(value)) copy[name] = downgrade(item);
  for (const [exclusive, bound] of [["exclusiveMinimum", "minimum"], ["exclusiveMaximum", "maximum"]]) {
    if (typeof copy[exclusive] === "number") {
      copy[bound] = copy[exclusive];
      copy[exclusive] = true;
    }
  }
  return copy;
}

try {
  const document31 = await getJson("/openapi.json");
  // This release of Swagger UI reads OpenAPI 3.0; what is served at /openapi.json stays 3.1.
  const spec = { ...downgrade(document31), openapi: "3.0.3" };
  $("swagger-ui").replaceChildren();
  window.SwaggerUIBundle({
    spec,
    dom_id: "#swagger-ui",
    deepLinking: true,
    validatorUrl: null,
    requestInterceptor: (outgoing) => {
      const key = storedKey();
      if (key) outgoing.headers.Authorization ??= `Bearer ${key}`;
      return outgoing;
    },
    defaultModelsExpandDepth: -1,
    presets: [window.SwaggerUIBundle.presets.apis],
    layout: "BaseLayout",
  });
} catch (error) {
  showProblem($("problem"), error);
}
