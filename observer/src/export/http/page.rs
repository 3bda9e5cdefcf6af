//! The landing page: for a person who opened the port in a browser.

/// Routes with what they are for; the page lists them, and the OpenAPI document must name them.
pub(super) const ROUTES: &[(&str, &str)] = &[
    ("/metrics", "metrics, in the Prometheus text format or OpenMetrics"),
    ("/api/v1/summary", "the last minute in numbers, as JSON"),
    ("/api/v1/gpu", "whether the GPU driver is open, as JSON"),
    ("/healthz", "whether this process lives"),
    ("/readyz", "whether it observes"),
    ("/openapi.json", "description of these routes"),
];

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

pub(super) fn page(scope: &str, ready: &Result<(), String>) -> String {
    let state = match ready {
        Ok(()) => "Observing".to_owned(),
        Err(reason) => format!("Not observing ({})", escape(reason)),
    };
    let links: String = ROUTES
        .iter()
        .map(|(path, help)| format!("<li><a href=\"{path}\"><code>{path}</code></a> &ndash; {help}</li>\n"))
        .collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>observer</title>\n\
         <style>body {{ font-family: sans-serif; margin: 2em; max-width: 50em; }}</style>\n</head>\n<body>\n\
         <h1>observer {version}</h1>\n\
         <p>Measures every request to the LLM servers of this host from the kernel.</p>\n\
         <p>{state}: {scope}.</p>\n<ul>\n{links}</ul>\n\
         <p><code>observer top</code> shows the summary in a terminal.</p>\n</body>\n</html>\n",
        version = env!("CARGO_PKG_VERSION"),
        scope = escape(scope),
    )
}
