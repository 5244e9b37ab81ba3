// Renders the service's own OpenAPI document. validatorUrl is null so that the page never calls out.
// Where the service wants to know who asks, so does the page: the credential lives as long as the page and goes to this service alone.
const needed = (await fetch("/openapi.json", { method: "HEAD" })).status === 401;
const credential = needed ? window.prompt("API key or bearer token") : null;

SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#api",
  validatorUrl: null,
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  requestInterceptor: (request) => {
    if (credential && new URL(request.url, location.href).origin === location.origin) {
      request.headers.Authorization = `Bearer ${credential}`;
    }
    return request;
  },
});
