//! MCP method names as a closed set, and what the proxy needs to know of each.

use super::ProtocolVersion::{self, V2024_11_05 as V24, V2025_06_18 as V25B, V2025_11_25 as V25C, V2026_07_28 as V26};

macro_rules! methods {
    (
        mcp { $($variant:ident = $name:literal in $since:ident..=$until:ident,)+ }
        http { $($http:ident = $http_name:literal,)+ }
    ) => {
        /// What a request asked for: an MCP method where one is known, else the HTTP method.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum MethodLabel {
            $(#[doc = $name] $variant,)+
            $(#[doc = $http_name] $http,)+
            /// Any other.
            Other,
        }

        impl MethodLabel {
            /// Every label but `Other`.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+ $(Self::$http,)+];

            /// Of a method's text.
            #[must_use]
            pub fn of(name: &[u8]) -> Self {
                match name {
                    $(name if name == $name.as_bytes() => Self::$variant,)+
                    $(name if name == $http_name.as_bytes() => Self::$http,)+
                    _ => Self::Other,
                }
            }

            /// Metric label.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                    $(Self::$http => $http_name,)+
                    Self::Other => "other",
                }
            }

            /// Whether it is an HTTP method, as the MCP method is not known.
            #[must_use]
            pub fn is_http(self) -> bool {
                matches!(self, $(Self::$http)|+)
            }

            /// Whether the version has this method over HTTP, as a message of its own. Methods of
            /// extensions count for the versions the extension is written for.
            #[must_use]
            pub fn exists_in(self, version: ProtocolVersion) -> bool {
                match self {
                    $(Self::$variant => ($since..=$until).contains(&version),)+
                    $(Self::$http)|+ | Self::Other => false,
                }
            }
        }
    };
}

// In the order of how often they are met: `of` asks one after the other.
methods! {
    mcp {
        ToolsCall = "tools/call" in V24..=V26,
        ToolsList = "tools/list" in V24..=V26,
        ResourcesRead = "resources/read" in V24..=V26,
        ResourcesList = "resources/list" in V24..=V26,
        ResourcesTemplatesList = "resources/templates/list" in V24..=V26,
        PromptsGet = "prompts/get" in V24..=V26,
        PromptsList = "prompts/list" in V24..=V26,
        CompletionComplete = "completion/complete" in V24..=V26,
        ServerDiscover = "server/discover" in V26..=V26,
        SubscriptionsListen = "subscriptions/listen" in V26..=V26,
        Initialize = "initialize" in V24..=V25C,
        Initialized = "notifications/initialized" in V24..=V25C,
        Ping = "ping" in V24..=V25C,
        Progress = "notifications/progress" in V24..=V26,
        Message = "notifications/message" in V24..=V26,
        Cancelled = "notifications/cancelled" in V24..=V25C,
        TasksGet = "tasks/get" in V25C..=V26,
        TasksUpdate = "tasks/update" in V26..=V26,
        TasksCancel = "tasks/cancel" in V25C..=V26,
        TasksResult = "tasks/result" in V25C..=V25C,
        TasksList = "tasks/list" in V25C..=V25C,
        TasksStatus = "notifications/tasks/status" in V25C..=V25C,
        TasksNotification = "notifications/tasks" in V26..=V26,
        ResourcesSubscribe = "resources/subscribe" in V24..=V25C,
        ResourcesUnsubscribe = "resources/unsubscribe" in V24..=V25C,
        LoggingSetLevel = "logging/setLevel" in V24..=V25C,
        ToolsListChanged = "notifications/tools/list_changed" in V24..=V26,
        PromptsListChanged = "notifications/prompts/list_changed" in V24..=V26,
        ResourcesListChanged = "notifications/resources/list_changed" in V24..=V26,
        ResourcesUpdated = "notifications/resources/updated" in V24..=V26,
        RootsListChanged = "notifications/roots/list_changed" in V24..=V25C,
        SubscriptionsAcknowledged = "notifications/subscriptions/acknowledged" in V26..=V26,
        ElicitationComplete = "notifications/elicitation/complete" in V25C..=V25C,
        SamplingCreateMessage = "sampling/createMessage" in V24..=V25C,
        RootsList = "roots/list" in V24..=V25C,
        ElicitationCreate = "elicitation/create" in V25B..=V25C,
    }
    http {
        Post = "POST",
        Get = "GET",
        Delete = "DELETE",
        Head = "HEAD",
        Options = "OPTIONS",
        Put = "PUT",
        Patch = "PATCH",
    }
}

/// The member of `params` that `Mcp-Name` repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameField {
    /// `params.name`
    Name,
    /// `params.uri`
    Uri,
    /// `params.taskId`
    TaskId,
}

impl MethodLabel {
    /// Whether results may be kept and served again (2026-07-28, "Caching"). Decided by method: a
    /// task's result also has a member named `ttlMs`, which means its lifetime.
    #[must_use]
    pub fn is_cacheable(self) -> bool {
        matches!(
            self,
            Self::ServerDiscover
                | Self::ToolsList
                | Self::PromptsList
                | Self::ResourcesList
                | Self::ResourcesTemplatesList
                | Self::ResourcesRead
        )
    }

    /// Whether requests that ask the same at the same time may share one answer. The cacheable ones
    /// and no others: what may not be served a moment later may not be shared now either.
    #[must_use]
    pub fn is_coalescable(self) -> bool {
        self.is_cacheable()
    }

    /// Whether asking twice does no more than asking once, so that a request whose answer was lost
    /// may be sent again. `tools/call` is none of them, whatever the tool says of itself.
    #[must_use]
    pub fn is_read(self) -> bool {
        self.is_cacheable()
            || matches!(
                self,
                Self::PromptsGet
                    | Self::CompletionComplete
                    | Self::TasksGet
                    | Self::TasksList
                    | Self::TasksResult
                    | Self::Ping
            )
    }

    /// Which member of `params` `Mcp-Name` repeats (2026-07-28, "Request metadata"; for tasks their
    /// extension's page). Methods without one need no `Mcp-Name`.
    #[must_use]
    pub fn name_field(self) -> Option<NameField> {
        match self {
            Self::ToolsCall | Self::PromptsGet => Some(NameField::Name),
            Self::ResourcesRead => Some(NameField::Uri),
            Self::TasksGet | Self::TasksUpdate | Self::TasksCancel => Some(NameField::TaskId),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_texts_are_one_to_one() {
        for method in MethodLabel::ALL {
            assert_eq!(MethodLabel::of(method.label().as_bytes()), *method);
        }
        for text in ["", "TOOLS/CALL", "tools/call ", "tools", "other", "rpc.discover"] {
            assert_eq!(MethodLabel::of(text.as_bytes()), MethodLabel::Other);
        }
    }

    #[test]
    fn p_037_the_modern_version_has_no_legacy_methods() {
        for name in ["ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "initialize"] {
            let method = MethodLabel::of(name.as_bytes());
            assert!(!method.exists_in(V26), "{name}");
            assert!(
                [V24, ProtocolVersion::V2025_03_26, V25B, V25C].iter().all(|version| method.exists_in(*version)),
                "{name}"
            );
        }
        assert!(!MethodLabel::Other.exists_in(V26));
        assert!(!MethodLabel::ToolsCall.exists_in(ProtocolVersion::Unknown));
    }

    #[test]
    fn p_057_six_methods_are_cacheable() {
        let cacheable: Vec<_> = MethodLabel::ALL.iter().filter(|method| method.is_cacheable()).collect();
        assert_eq!(cacheable.len(), 6);
        assert!(cacheable.iter().all(|method| method.is_read()));
    }

    #[test]
    fn p_076_calls_and_writes_are_never_coalesced() {
        for name in ["tools/call", "prompts/get", "completion/complete", "tasks/update", "tasks/cancel", "tasks/get"] {
            assert!(!MethodLabel::of(name.as_bytes()).is_coalescable(), "{name}");
        }
        for name in ["tools/call", "tasks/update", "tasks/cancel", "logging/setLevel", "subscriptions/listen"] {
            assert!(!MethodLabel::of(name.as_bytes()).is_read(), "{name}");
        }
    }
}
