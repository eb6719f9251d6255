//! MCP method names as a closed set, for metric labels.

macro_rules! methods {
    ($($variant:ident = $name:literal),+ $(,)?) => {
        /// What a request asked for: an MCP method where the head names it (`Mcp-Method`, from
        /// 2026-07-28 on), else the HTTP method.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum MethodLabel {
            $(#[doc = $name] $variant,)+
            /// Any other.
            Other,
        }

        impl MethodLabel {
            /// Of a method's text.
            #[must_use]
            pub fn of(name: &[u8]) -> Self {
                match name {
                    $(name if name == $name.as_bytes() => Self::$variant,)+
                    _ => Self::Other,
                }
            }

            /// Metric label.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                    Self::Other => "other",
                }
            }
        }
    };
}

methods! {
    ToolsCall = "tools/call",
    ToolsList = "tools/list",
    ResourcesRead = "resources/read",
    ResourcesList = "resources/list",
    ResourcesTemplatesList = "resources/templates/list",
    PromptsGet = "prompts/get",
    PromptsList = "prompts/list",
    CompletionComplete = "completion/complete",
    ServerDiscover = "server/discover",
    SubscriptionsListen = "subscriptions/listen",
    TasksGet = "tasks/get",
    TasksUpdate = "tasks/update",
    TasksCancel = "tasks/cancel",
    Post = "POST",
    Get = "GET",
    Delete = "DELETE",
    Head = "HEAD",
    Options = "OPTIONS",
    Put = "PUT",
    Patch = "PATCH",
}
