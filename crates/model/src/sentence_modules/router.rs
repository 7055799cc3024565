//! sentence-transformers' Router (once Asym): several lists of modules, of which the task of a call chooses one.

use super::module_list::{ModuleClass, NamedModule, inner_path, list_error};
use super::route_mapping::{RouteMapping, route_of};
use crate::ModelError;
use crate::config_fields::ConfigFields;
use crate::json_file::{read_object, type_name};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// What may be in a route.
const EXPECTED: &str = "Transformer, Pooling, Dense, LayerNorm, Normalize or Dropout";

/// The names that the file of its settings has had.
const FILES: [&str; 2] = ["router_config.json", "config.json"];

/// What else the constructor of the module takes.
const PARAMETERS: [&str; 3] = ["default_route", "allow_empty_key", "route_mappings"];

/// The modules of the route that `task` chooses of the Router `router`.
pub(super) fn chosen_modules(
    router: &NamedModule,
    task: Option<&str>,
) -> Result<Vec<NamedModule>, ModelError> {
    for name in FILES {
        let file = router.folder.join(name);
        if let Some(value) = read_object(&file)? {
            let settings = RouterSettings::read(&file, &value)?;
            return settings.modules_of(settings.route(task)?, &router.folder);
        }
    }
    let file = router.folder.join(FILES[0]);
    let message = format!("expected a file {}, found none", file.display());
    Err(router.error_of_folder(message))
}

struct RouterSettings<'a> {
    file: PathBuf,
    /// Class by id of a module.
    types: &'a Map<String, Value>,
    /// Ids of modules by route; at least one route.
    structure: &'a Map<String, Value>,
    /// The route where no task is given.
    default_route: Option<&'a str>,
    mappings: Vec<RouteMapping<'a>>,
}

impl<'a> RouterSettings<'a> {
    fn read(file: &Path, value: &'a Value) -> Result<Self, ModelError> {
        let types = object(file, "types", &value["types"])?;
        let structure = object(file, "structure", &value["structure"])?;
        let parameters = object(file, "parameters", &value["parameters"])?;
        let fields = ConfigFields::new(file, &value["parameters"]);
        let Some(first_route) = structure.keys().next() else {
            let message = "expected at least one route, found none".to_owned();
            return Err(list_error(file, "structure", message));
        };
        if let Some((name, found)) = fields.unknown(|name| PARAMETERS.contains(&name)) {
            let hint = "sentence-transformers 6.2 has no such setting and does not load the file";
            let field = format!("parameters.{name}");
            return Err(ConfigFields::new(file, value).unsupported(
                &field,
                "no such field",
                found,
                hint,
            ));
        }
        let settings = Self {
            file: file.to_owned(),
            types,
            structure,
            default_route: None,
            mappings: Vec::new(),
        };
        let default_route = match parameters.get("default_route") {
            None | Some(Value::Null) => {
                let allow_empty_key = fields.flag("allow_empty_key", true)?;
                allow_empty_key.then_some(first_route.as_str())
            }
            Some(found) => Some(settings.known_route("default_route", found)?),
        };
        let mut mappings = Vec::new();
        if let Some(found) = parameters
            .get("route_mappings")
            .filter(|found| !found.is_null())
        {
            for (key, route) in object(file, "parameters.route_mappings", found)? {
                let field = format!("route_mappings.{key}");
                let route = settings.known_route(&field, route)?;
                match RouteMapping::parse(key, route) {
                    Some(mapping) => mappings.push(mapping),
                    None => tracing::warn!(
                        "{}: `{key}` of `route_mappings` is no pair of a task and a modality and is passed over, as sentence-transformers 6.2 does",
                        file.display()
                    ),
                }
            }
        }
        Ok(Self {
            default_route,
            mappings,
            ..settings
        })
    }

    /// `found` at `field` of the parameters, which must be the name of a route.
    fn known_route(&self, field: &str, found: &'a Value) -> Result<&'a str, ModelError> {
        let name = found.as_str();
        let known = name.filter(|name| self.structure.contains_key(*name));
        known.ok_or_else(|| {
            let message = format!(
                "expected one of the routes {}, found {found}",
                self.routes()
            );
            ModelError::Config {
                file: self.file.clone(),
                field: format!("parameters.{field}"),
                message,
                hint: "correct the value or fetch the file again".to_owned(),
            }
        })
    }

    /// The route of texts for `task`.
    fn route(&self, task: Option<&'a str>) -> Result<&'a str, ModelError> {
        if let Some(route) = route_of(&self.mappings, task) {
            return Ok(route);
        }
        let direct = [task, Some("text")].into_iter().flatten();
        for name in direct {
            if let Some((route, _)) = self.structure.get_key_value(name) {
                return Ok(route);
            }
        }
        match (task, self.default_route) {
            (None, Some(route)) => Ok(route),
            (Some(task), _) => {
                let tasks = self.tasks();
                Err(self.error(
                    "structure",
                    format!("expected a route for the task `{task}`, found routes for {tasks}"),
                ))
            }
            (None, None) => Err(self.error(
                "parameters.default_route",
                format!(
                    "expected a route where no task is given, found none beside the routes for {}",
                    self.tasks()
                ),
            )),
        }
    }

    /// The modules of `route`, whose folders are in `folder`.
    fn modules_of(&self, route: &str, folder: &Path) -> Result<Vec<NamedModule>, ModelError> {
        let field = format!("structure.{route}");
        let found = &self.structure[route];
        let Some(ids) = found.as_array() else {
            let message = format!("expected a list of modules, found {}", type_name(found));
            return Err(list_error(&self.file, field, message));
        };
        let mut modules = Vec::with_capacity(ids.len());
        for (index, id) in ids.iter().enumerate() {
            let field = format!("{field}.{index}");
            let path = inner_path(id).filter(|path| !path.as_os_str().is_empty());
            let Some(path) = path else {
                let message =
                    format!("expected the path of a folder inside the Router's, found {id}");
                return Err(list_error(&self.file, field, message));
            };
            let name = id.as_str().unwrap_or_default();
            let Some(kind) = self.types.get(name) else {
                let message = format!("expected the name of one of `types`, found \"{name}\"");
                return Err(list_error(&self.file, field, message));
            };
            let fields = [format!("types.{name}"), field];
            let folder = folder.join(path);
            let module = NamedModule::new(&self.file, fields, kind, folder, EXPECTED)?;
            if module.class == ModuleClass::Router {
                return Err(module.error_of_place("a module that is no Router itself"));
            }
            modules.push(module);
        }
        Ok(modules)
    }

    fn routes(&self) -> String {
        let names: Vec<_> = self
            .structure
            .keys()
            .map(|name| format!("`{name}`"))
            .collect();
        names.join(", ")
    }

    /// The tasks that choose a route.
    fn tasks(&self) -> String {
        let mut names: Vec<&str> = self.structure.keys().map(String::as_str).collect();
        names.extend(self.mappings.iter().filter_map(|mapping| mapping.task()));
        names.sort_unstable();
        names.dedup();
        let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        names.join(", ")
    }

    fn error(&self, field: &str, message: String) -> ModelError {
        ModelError::Config {
            file: self.file.clone(),
            field: field.to_owned(),
            message,
            hint: "choose a route with --task NAME".to_owned(),
        }
    }
}

fn object<'a>(
    file: &Path,
    field: &str,
    found: &'a Value,
) -> Result<&'a Map<String, Value>, ModelError> {
    found.as_object().ok_or_else(|| {
        let message = format!("expected an object, found {}", type_name(found));
        list_error(file, field, message)
    })
}
